"""The sections of the report, one module each: section.SECTIONS imports every module here."""

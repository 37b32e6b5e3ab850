"""Data sources: the registered kinds of labelled and unlabelled image data, local or s3://, each read as one list of
files.

`source.py` has the registry `SOURCES`, and `listing.py` lists folders. `folders`, `kaggle`, `table`, `unlabelled` and
`single_file` are one kind of source each; a new kind is a new module.
"""

from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader, find, inputs_hash

__all__ = ["SOURCES", "Location", "Source", "SourceReader", "find", "inputs_hash"]

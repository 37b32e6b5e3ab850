"""Where the images are: the registered kinds of data sources, local or s3://, each read as one list of files.

`source.py` has the registry `SOURCES`; every other module but `listing.py` is one kind of source, and a new module is a new one.
"""

from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader, find, inputs_hash

__all__ = ["SOURCES", "Location", "Source", "SourceReader", "find", "inputs_hash"]

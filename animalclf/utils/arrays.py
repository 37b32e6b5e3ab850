"""Files of arrays, in NumPy's .npz format."""

import struct
import tokenize
import zipfile
import zlib

# What np.load raises for a damaged file: also "encrypted" or "compressed otherwise", and sizes that no memory has.
READ_ERRORS = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, MemoryError, OverflowError,
    RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip

"""The file of a table: its encoding, separator and columns, as people and spreadsheets write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings

import pandas as pd

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare.sources.listing import IMAGE_SUFFIXES
from animalclf.utils import storage
from animalclf.utils.text import cut, reason

SEPARATORS = ",;\t|"
SEPARATOR_LINE = "sep="  # the first line of a CSV file for Excel: sep=;
WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # .xlsx and other archives, .xls
WORKBOOK_ERROR = "{}: is a workbook or an archive, not a CSV file; save the sheet as CSV, or unpack the archive"
JSON_ERROR = "{}: is JSON, not a CSV file; save it as CSV, with a first line of column names, or as Parquet"
MAX_HEADER = 2**16  # characters
MAX_NAMES = 20  # columns named in an error
_UNEVEN = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")  # an error of pandas
_JSON = re.compile(r"\s*(\{\s*\"|\[\s*[\[{])")  # objects, one in a line or in a list, and lists of lists
BITS = {"0", "1", "0.0", "1.0"}


def read_table(url: str, config: Data) -> pd.DataFrame:
    """The table at `url`, a CSV file's values as text. The columns that `config` names have these names, whatever their
    case and the blanks around them. Raises UserError for a file that is missing or cannot be read."""
    try:
        content = storage.with_retries(url, lambda: storage.read_bytes(url))
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such table") from error
    except OSError as error:
        raise UserError(f"{url}: cannot be read: {error.strerror or reason(error)}") from error
    try:
        if url.lower().endswith(".parquet"):
            return _rename_columns(storage.parse_parquet(content), config)
        if content.startswith(WORKBOOKS):
            raise UserError(WORKBOOK_ERROR.format(url))
        text, separator = decode_text(content, url, config.path_column)
        if _JSON.match(text):
            raise UserError(JSON_ERROR.format(url))
        return _rename_columns(parse_csv(text, separator).rename(columns=str.strip), config)
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, OSError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{url}: cannot be read as a table: {_table_reason(error)}") from error


def parse_csv(text: str, separator: str) -> pd.DataFrame:
    """A CSV file with every value as text. A separator at the end of the lines, or of the first one, adds no column.
    Raises ValueError if its rows have more values than its first line has names: pandas would take the first column for
    an index, and the other columns for their neighbours."""
    table = pd.read_csv(io.StringIO(text), sep=separator, dtype="string", keep_default_na=False)
    if isinstance(table.index, pd.RangeIndex):
        last = table.shape[1] - 1
        ends = last > 0 and table.columns[last] == f"Unnamed: {last}" and table.iloc[:, last].fillna("").eq("").all()
        return table.iloc[:, :last] if ends else table
    names = table.shape[1]
    extra = table.iloc[:, names - table.index.nlevels :]
    if (extra.to_numpy(object) != "").any():
        raise ValueError(
            f"line 2 has {names + table.index.nlevels} values, the first line has {names} names; remove lines above "
            "the header, name every column, and quote values that contain the separator"
        )
    with warnings.catch_warnings(action="ignore", category=pd.errors.ParserWarning):  # the lines end with a separator
        return pd.read_csv(io.StringIO(text), sep=separator, dtype="string", keep_default_na=False, index_col=False)


def _table_reason(error: Exception) -> str:
    """One line, in the words of tables where pandas has its own."""
    if uneven := _UNEVEN.search(str(error)):
        expected, line, count = uneven.groups()
        return (
            f"line {line} has {count} values, the lines above have {expected}; "
            "remove lines above the header, and quote values that contain the separator"
        )
    return reason(error)


def decode_text(content: bytes, url: str, column: str) -> tuple[str, str]:
    """The text of a table, UTF-8 or UTF-16, from its header, and the separator of its columns, one of which is probably
    `column`. Raises UnicodeDecodeError."""
    text = content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    separator = _separator(text, "\t" if url.lower().endswith(".tsv") else ",", column)
    return text.partition("\n")[2] if text.startswith(SEPARATOR_LINE) else text, separator


def _separator(text: str, default: str, column: str) -> str:
    """The separator of the columns: the one that the file states, else `default`, unless
    another one gives the name `column`, or only another one occurs in the header."""
    header = next(iter(text[:MAX_HEADER].splitlines()), "")
    if header.startswith(SEPARATOR_LINE) and len(header) == len(SEPARATOR_LINE) + 1:
        return header[-1]
    columns = {separator: next(csv.reader([header], delimiter=separator), []) for separator in SEPARATORS}
    order = [default, *(separator for separator in SEPARATORS if separator != default)]
    by_name = [separator for separator in order if column in columns[separator] and len(columns[separator]) > 1]
    present = [separator for separator in order if len(columns[separator]) > 1]
    return next(iter(by_name + present), default)


def _rename_columns(table: pd.DataFrame, config: Data) -> pd.DataFrame:
    """`table` with the configured names of the columns that differ from them in case or blanks only."""
    names = {}
    for name in (config.path_column, config.label_column, config.split_column):
        similar = [column for column in table.columns if str(column).strip().casefold() == name.casefold()]
        if name not in table.columns and len(similar) == 1:
            names[similar[0]] = name
    return table.rename(columns=names)


def check_columns(url: str, table: pd.DataFrame, config: Data, labelled: bool) -> None:
    """Raise UserError for a missing column, and for one column per class in place of labels."""
    columns = {"data.path_column": config.path_column}
    if labelled:
        columns["data.label_column"] = config.label_column
    header = [str(name) for name in table.columns]
    for key, column in columns.items():
        classes = _class_columns(table) if key == "data.label_column" else []
        if classes and (column in classes or column not in header):
            raise UserError(
                f"{url}: has one column per class ({_list_names(classes)}); add a column with the class of each row, "
                f"and name it with --set {key}=..."
            )
        if column not in header:
            if any(len(name) > 1 and name[0] == name[-1] == "'" for name in header):
                raise UserError(
                    f"{url}: has its column names in single quotes, which belong to the text in a CSV file; write "
                    "names and values in double quotes, or without quotes"
                )
            headless = any(name.lower().endswith(IMAGE_SUFFIXES) for name in header)
            remedy = f"add a first line with the names of the columns: {config.path_column},{config.label_column}"
            raise UserError(
                f"{url}: has no column {column!r}, only {_list_names(header)}{configuration.nearest(column, header)}; "
                f"{remedy if headless else f'name it with --set {key}=...'}"
            )


def _class_columns(table: pd.DataFrame) -> list[str]:
    """The columns of 0 and 1 with a single 1 in each row; none if there are fewer than two."""
    texts = {str(name): table[name].astype("string").str.strip() for name in table.columns}
    columns = {name: text for name, text in texts.items() if len(text) and text.isin(BITS).all()}
    ones = sum((text.str.startswith("1").astype(int) for text in columns.values()), pd.Series(0, table.index))
    return list(columns) if len(columns) > 1 and (ones == 1).all() else []


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(repr(cut(name)) for name in names[:MAX_NAMES]) + more

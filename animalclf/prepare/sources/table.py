"""A CSV, TSV or Parquet table with a path column, a label column and optionally a split column."""

from __future__ import annotations

import io
import os
import posixpath

import pandas as pd

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare.sources.listing import list_files
from animalclf.prepare.sources.source import SOURCES, SPLITS, Location, Source, SourceReader
from animalclf.utils import storage

TABLES = (".csv", ".tsv", ".parquet")
MAX_LINES = 5  # named in an error


@SOURCES.register("table")
class Table(SourceReader):
    """Paths are absolute, or relative to the table's folder."""

    priority = 60

    def matches(self, location: Location) -> bool:
        return location.url.lower().endswith(TABLES)

    def read(self, location: Location) -> Source:
        url, labelled = location.url, location.labelled
        table = _read_table(url)
        path, labels, splits = _columns(url, table, location.config, labelled)
        folder = posixpath.dirname(url)
        urls = path.map(lambda path: path if storage.is_remote(path) else storage.join(folder, path))
        _refuse_rows(url, urls.duplicated(keep="first"), "name the same image as an earlier row; remove them")
        root = folder if urls.str.startswith(f"{folder}/").all() else _common_folder(urls)
        sizes, stamps = _sizes_and_stamps(url, urls, root)
        paths = urls.str.slice(len(root.rstrip("/")) + 1)
        files = pd.DataFrame({"path": paths, "bytes": sizes, "stamp": stamps, "label": labels, "split": splits})
        files = files.astype({"path": str, "label": str, "split": str, "stamp": str, "bytes": "int64"})
        files = files.sort_values("path", ignore_index=True)
        if files.empty:
            raise UserError(f"{url}: has no rows")
        if labelled and files["label"].nunique() < 2:
            raise UserError(f"{url}: only one class, {files['label'].iloc[0]!r}; a classifier needs at least two")
        return Source(root, files, "table", whole_folder=False)


def _common_folder(urls: pd.Series) -> str:
    """The deepest folder that holds all files."""
    folders = [f"{posixpath.dirname(url)}/" for url in urls]
    return posixpath.dirname(os.path.commonprefix(folders))  # noqa: RUF071 (commonpath would make s3:/ of s3://)


def _read_table(url: str) -> pd.DataFrame:
    """The table as text. Raises UserError for one that is missing or cannot be read."""
    try:
        content = storage.with_retries(url, lambda: storage.read_bytes(url))
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such table") from error
    try:
        if url.lower().endswith(".parquet"):
            return storage.parse_parquet(content)
        separator = "\t" if url.lower().endswith(".tsv") else ","
        return pd.read_csv(
            io.BytesIO(content), sep=separator, dtype="string", encoding="utf-8-sig", keep_default_na=False
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{url}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def _columns(url: str, table: pd.DataFrame, config: Data, labelled: bool) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Path, label and split of each row, "" where there is none. Raises UserError for a missing column, and for rows
    with an empty or invalid value."""
    columns = {"data.path_column": config.path_column}
    if labelled:
        columns["data.label_column"] = config.label_column
    for key, column in columns.items():
        if column not in table.columns:
            hint = configuration.nearest(column, map(str, table.columns))
            raise UserError(
                f"{url}: has no column {column!r}, only {', '.join(map(repr, table.columns))}{hint}; "
                f"name it with --set {key}=..."
            )
    paths = table[config.path_column].astype("string").str.strip()
    _refuse_rows(url, paths.isna() | (paths == ""), "have no path")
    empty = pd.Series("", index=table.index, dtype="string")
    if not labelled:
        return paths, empty, empty
    labels = table[config.label_column].astype("string").str.strip()
    _refuse_rows(url, labels.isna() | (labels == ""), "have no label")
    if config.split_column not in table.columns:
        return paths, labels, empty
    names = table[config.split_column].astype("string").str.strip().str.lower().fillna("")
    splits = names.map({**SPLITS, "": ""})
    _refuse_rows(url, splits.isna(), f"have a value other than train, val, test in the column {config.split_column!r}")
    return paths, labels, splits


def _refuse_rows(url: str, wrong: pd.Series, problem: str) -> None:
    """Raise UserError with the line numbers of the rows that are `wrong`, if there are any."""
    if wrong.any():
        lines = [str(row + 2) for row in wrong.to_numpy().nonzero()[0]]  # from 1, after the header
        shown = f"{', '.join(lines[:MAX_LINES])}{', ...' if len(lines) > MAX_LINES else ''}"
        raise UserError(f"{url}: {len(lines):,} rows {problem}: line {shown}")


def _sizes_and_stamps(url: str, urls: pd.Series, root: str) -> tuple[list[int], list[str]]:
    """Bytes and stamp of every file of the table `url`. Raises UserError with the files that are missing."""
    facts: dict[str, tuple[int, str]] = {}
    if storage.is_remote(root):
        facts = {storage.join(root, file.path): (file.bytes, file.stamp) for file in list_files(root)}
    else:
        for path in urls:
            if os.path.isfile(path):
                stat = os.stat(path)
                facts[path] = (stat.st_size, str(stat.st_mtime_ns))
    missing = [path for path in urls if path not in facts]
    if missing:
        raise UserError(
            f"{url}: {len(missing):,} of {len(urls):,} files do not exist, such as {', '.join(missing[:3])}; "
            f"paths are relative to {root}"
        )
    return [facts[path][0] for path in urls], [facts[path][1] for path in urls]

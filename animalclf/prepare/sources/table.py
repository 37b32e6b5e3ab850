"""A CSV, TSV or Parquet table with a path column, a label column and perhaps a split column."""

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


@SOURCES.register("table")
class Table(SourceReader):
    """Paths are relative to the table's folder, or whole."""

    priority = 60

    def matches(self, location: Location) -> bool:
        return location.url.lower().endswith(TABLES)

    def read(self, location: Location) -> Source:
        url, labelled = location.url, location.labelled
        table = _read_table(url)
        path, labels, splits = _columns(url, table, location.config, labelled)
        folder = posixpath.dirname(url)
        full = path.map(lambda path: path if storage.is_remote(path) else storage.join(folder, path))
        _refuse_rows(
            url, full.duplicated(keep="first"), "name a picture that an earlier row names already; one row a picture"
        )
        root = folder
        if not full.str.startswith(f"{folder}/").all():
            root = posixpath.dirname(os.path.commonprefix([f"{posixpath.dirname(path)}/" for path in full]))  # noqa: RUF071 (commonpath would make s3:/ of s3://)
        sizes, stamps = _file_facts(url, full, root)
        rows = pd.DataFrame(
            {
                "path": full.str.slice(len(root.rstrip("/")) + 1),
                "bytes": sizes,
                "stamp": stamps,
                "label": labels,
                "split": splits,
            }
        )
        rows = rows.astype({"path": str, "label": str, "split": str, "stamp": str, "bytes": "int64"}).sort_values(
            "path", ignore_index=True
        )
        if labelled and rows["label"].nunique() < 2:
            raise UserError(
                f"{url}: only one class, {rows['label'].iloc[0]!r}; a classifier needs at least two"
                if len(rows)
                else f"{url}: has no rows"
            )
        return Source(root, rows, "table", whole_folder=False)


def _read_table(url: str) -> pd.DataFrame:
    """The table as text. Raises UserError for one that is missing or cannot be read."""
    try:
        content = storage.explained(url, lambda: storage.read_bytes(url))
    except FileNotFoundError as error:
        raise UserError(f"{url}: there is no such table") from error
    try:
        if url.lower().endswith(".parquet"):
            return storage.as_table(content)
        separator = "\t" if url.lower().endswith(".tsv") else ","
        return pd.read_csv(
            io.BytesIO(content), sep=separator, dtype="string", encoding="utf-8-sig", keep_default_na=False
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text (byte {error.start}); save it as UTF-8 and try again") from error
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{url}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def _columns(url: str, table: pd.DataFrame, config: Data, labelled: bool) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Path, label and split of each row ("" without). Raises UserError for a missing column, and for rows without a value or with a wrong one."""
    wanted = [config.path_column] + ([config.label_column] if labelled else [])
    for number, column in enumerate(wanted):
        if column not in table.columns:
            hint = configuration.nearest(column, map(str, table.columns))
            key = "data.path_column" if number == 0 else "data.label_column"
            raise UserError(
                f"{url}: has no column {column!r}, only {', '.join(map(repr, table.columns))}{hint}; name it with --set {key}=..."
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
    given = table[config.split_column].astype("string").str.strip().str.lower().fillna("")
    splits = given.map({**SPLITS, "": ""})
    _refuse_rows(url, splits.isna(), f"have a {config.split_column} other than train, val, test")
    return paths, labels, splits


def _refuse_rows(url: str, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        lines = [str(number + 2) for number in wrong.to_numpy().nonzero()[0]]  # as an editor counts, behind the header
        raise UserError(
            f"{url}: {len(lines):,} rows {what}: line {', '.join(lines[:5])}{', ...' if len(lines) > 5 else ''}"
        )


def _file_facts(url: str, full: pd.Series, root: str) -> tuple[list[int], list[str]]:
    """Bytes and stamp of every file of a table. Raises UserError naming those that are missing."""
    if storage.is_remote(root):
        facts = {storage.join(root, path): (size, stamp) for path, size, stamp in list_files(root)}
    else:
        facts = {}
        for path in full:
            if os.path.isfile(path):
                stat = os.stat(path)
                facts[path] = (stat.st_size, str(stat.st_mtime_ns))
    missing = [path for path in full if path not in facts]
    if missing:
        raise UserError(
            f"{url}: {len(missing):,} of {len(full):,} files do not exist, such as {', '.join(missing[:3])}; paths are relative to {root}"
        )
    return [facts[path][0] for path in full], [facts[path][1] for path in full]

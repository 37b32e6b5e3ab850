"""A CSV, TSV or Parquet table with a path column, a label column and optionally a split column."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare.sources.folders import TABLES
from animalclf.prepare.sources.listing import list_files, list_images
from animalclf.prepare.sources.roles import role_of
from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.prepare.sources.table_file import check_columns, read_table
from animalclf.utils import storage
from animalclf.utils.text import count_clause, count_text, shown

WEB_ADDRESS = r"(?i)^(?:https?|ftp)://"
CONTROL = r"[\x00-\x1f\x7f]"
MAX_SHOWN = 5  # lines and values named in an error
MAX_PATH = 300  # characters of a path in an error


@SOURCES.register("table")
class Table(SourceReader):
    """Paths are absolute, or relative to the table's folder. Ids, which are file names without folder and suffix, are
    looked up in that folder."""

    priority = 60

    def matches(self, location: Location) -> bool:
        return location.url.lower().endswith(TABLES)

    def read(self, location: Location) -> Source:
        url, labelled = location.url, location.labelled
        table = read_table(url, location.config)
        paths, labels, splits = _columns(url, table, location.config, labelled)
        folder = posixpath.dirname(url)
        urls, files = _find_files(url, paths.map(lambda path: _locate(path, folder)))
        _refuse_rows(url, urls.duplicated(keep="first"), "name the same image as an earlier row", "remove them")
        root = folder if urls.str.startswith(f"{folder}/").all() else _common_folder(urls)
        rows = pd.DataFrame(
            {
                "path": urls.str.slice(len(root.rstrip("/")) + 1),
                "bytes": [files[name][0] for name in urls],
                "stamp": [files[name][1] for name in urls],
                "label": labels,
                "split": splits,
            }
        )
        rows = rows.astype({"path": str, "label": str, "split": str, "stamp": str, "bytes": "int64"})
        rows = rows.sort_values("path", ignore_index=True)
        if rows.empty:
            raise UserError(f"{url}: has no rows")
        if labelled and not location.classes and rows["label"].nunique() < 2:
            raise UserError(f"{url}: only one class, {rows['label'].iloc[0]!r}; a classifier needs at least two")
        return Source(root, rows, "table", whole_folder=False)


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _short(path: str) -> str:
    return path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…"


def _locate(path: str, folder: str) -> str:
    """The absolute path or URL of a row's `path`; a local one without `..`, so that no name leads out of its root."""
    if storage.is_remote(path) or storage.is_remote(folder):
        return path if storage.is_remote(path) else storage.join(folder, path)
    path_in_folder = storage.join(folder, path)
    return os.path.normpath(path_in_folder) if ".." in path_in_folder.split("/") else path_in_folder


def _common_folder(urls: pd.Series) -> str:
    """The deepest folder that holds all files."""
    folders = [f"{posixpath.dirname(url)}/" for url in urls]
    return posixpath.dirname(os.path.commonprefix(folders))  # noqa: RUF071 (commonpath would make s3:/ of s3://)


def _columns(url: str, table: pd.DataFrame, config: Data, labelled: bool) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Path, label and split of each row, "" if there is none. Raises UserError for a missing column, and for rows
    with an empty or invalid value."""
    check_columns(url, table, config, labelled)
    if table[config.path_column].dtype == object and not table[config.path_column].map(_is_text).all():
        raise UserError(f"{url}: the column {config.path_column!r} holds no text; write paths of image files into it")
    paths = table[config.path_column].astype("string").str.strip()
    _refuse_rows(url, paths.isna() | (paths == ""), "have no path")
    header = paths.str.strip("\ufeff") == config.path_column  # of two files that were joined
    if labelled:
        header &= table[config.label_column].astype("string").str.strip() == config.label_column
    _refuse_rows(url, header.fillna(False), "repeat the header", "remove them")
    _refuse_rows(url, paths.str.contains(CONTROL), "have a line break or a control character in the path")
    web = paths.str.contains(WEB_ADDRESS)
    _refuse_rows(url, web, "have the address of a web page as path", "download the images, and write their paths")
    empty = pd.Series("", index=table.index, dtype="string")
    if not labelled:
        return paths, empty, empty
    labels = table[config.label_column].astype("string").str.strip()
    _refuse_rows(url, labels.isna() | (labels == ""), "have no label", "label these images, or remove the rows")
    _refuse_rows(url, labels.str.contains(CONTROL), "have a line break or a control character in the label")
    if config.split_column not in table.columns:
        return paths, labels, empty
    names = table[config.split_column].astype("string").str.strip().fillna("")
    meaning = {name: "" if name == "" else role_of(name) for name in names.unique()}
    unknown = [name for name, role in meaning.items() if role is None or role == "predict"]
    problem = f"have a value other than train, val, test in the column {config.split_column!r}"
    examples = ", ".join(map(shown, unknown[:MAX_SHOWN]))
    _refuse_rows(url, names.isin(unknown), problem, f"write train, val or test instead of {examples}")
    return paths, labels, names.map(meaning)


def _refuse_rows(url: str, wrong: pd.Series, problem: str, remedy: str = "") -> None:
    """Raise UserError with the line numbers of the rows that are `wrong`, if there are any."""
    if wrong.any():
        lines = [str(row + 2) for row in wrong.to_numpy().nonzero()[0]]  # from 1, after the header
        shown = f"{', '.join(lines[:MAX_SHOWN])}{', ...' if len(lines) > MAX_SHOWN else ''}"
        raise UserError(f"{url}: {count_clause(len(lines), 'row', problem)}: line {shown}{'; ' * bool(remedy)}{remedy}")


def _find_files(url: str, urls: pd.Series) -> tuple[pd.Series, dict[str, tuple[int, str]]]:
    """The files that the rows of the table `url` name, and the bytes and stamp of each. Backslashes are read as
    slashes, and ids are looked up, if there is no file of that name. Raises UserError with the files that are
    missing or ambiguous."""
    root = _common_folder(urls) if len(urls) else posixpath.dirname(url)
    files = _sizes_and_stamps(urls, root)
    if any(name not in files for name in urls) and urls.str.contains("\\", regex=False).any():
        urls = urls.str.replace("\\", "/", regex=False)
        root = _common_folder(urls)
        files = _sizes_and_stamps(urls, root)
    missing = [name for name in urls if name not in files]
    if missing and len(missing) == len(urls):
        folder = posixpath.dirname(url)
        urls, files = _look_up(url, urls, folder)
        missing = [name for name in urls if name not in files]
    if missing:
        examples = ", ".join(map(_short, missing[:3]))
        raise UserError(
            f"{url}: {len(missing):,} of {count_text(len(urls), 'file')} missing, such as {examples}; "
            f"paths are relative to {posixpath.dirname(url)}"
        )
    return urls, files


def _look_up(url: str, urls: pd.Series, folder: str) -> tuple[pd.Series, dict[str, tuple[int, str]]]:
    """The images below `folder` whose names, with or without suffix, are the last parts of `urls`, in their
    case or, without such an image, in any. Raises UserError for names of several images."""
    images: dict[str, list[str]] = defaultdict(list)
    folded: dict[str, list[str]] = defaultdict(list)
    files: dict[str, tuple[int, str]] = {}
    exists = storage.is_remote(folder) or os.path.isdir(folder)
    for path, size, stamp in list_images(folder).images.to_numpy().tolist() if exists else []:
        name, base = storage.join(folder, path), posixpath.basename(path)
        files[name] = size, stamp
        for key in {base, posixpath.splitext(base)[0]}:
            images[key].append(name)
        for key in {base.casefold(), posixpath.splitext(base)[0].casefold()}:
            folded[key].append(name)
    ids = urls.map(posixpath.basename)
    matches = ids.map(lambda key: images.get(key) or folded.get(key.casefold(), []))
    for name, candidates in zip(urls, matches, strict=True):
        if len(candidates) > 1:
            raise UserError(
                f"{url}: {posixpath.basename(name)} names several images, such as {candidates[0]} and {candidates[1]}; "
                "write their paths into the table"
            )
    return pd.Series(
        [candidates[0] if candidates else name for name, candidates in zip(urls, matches, strict=True)], urls.index
    ), files


def _sizes_and_stamps(urls: Iterable[str], root: str) -> dict[str, tuple[int, str]]:
    """Bytes and stamp by URL, of those of the files that exist."""
    if storage.is_remote(root):
        return {storage.join(root, file.path): (file.bytes, file.stamp) for file in list_files(root)[0]}
    files = {}
    for path in urls:
        if os.path.isfile(path):
            stat = os.stat(path)
            files[path] = stat.st_size, str(stat.st_mtime_ns)
    return files

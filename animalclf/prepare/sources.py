"""Where the pictures are: class folders, a Kaggle competition folder, a table, or an unlabelled folder, local or s3://, as one list of files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
from dataclasses import dataclass, field

import pandas as pd

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.utils import storage

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
TABLES = (".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IGNORED_NAMES = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass(frozen=True, eq=False)
class Source:
    """The pictures that were found. `files`: one row a picture, sorted by path: path (relative to `root`), label ("" if unlabelled), split
    ("" if not given), bytes (int64), stamp (changes when the file does). `ignored`: files that are no pictures."""

    root: str
    files: pd.DataFrame
    kind: str
    ignored: list[str] = field(default_factory=list)
    test: str | None = None  # of a competition folder: its unlabelled pictures
    sample_submission: str | None = None


def find(data: str, config: Data, *, labelled: bool = True) -> Source:
    """The pictures that `data` names. With `labelled=False` those to be predicted: any folder's, or a competition folder's test pictures.

    Raises UserError that says what was expected and what is there: nothing, an archive, a folder without class folders, one class only,
    an empty class folder, a table with missing columns or files.
    """
    url = storage.absolute(data)
    if url.lower().endswith(ARCHIVES) and storage.explained(url, lambda: storage.exists(url)):
        raise UserError(f"{data}: is an archive; unpack it and name the folder")
    if url.lower().endswith(TABLES):
        return _table(url, config, labelled)
    listed, ignored = _list(url)
    if listed.empty:
        if not storage.explained(url, lambda: storage.exists(url)):
            raise UserError(f"{data}: there is no such folder or file")
        others = f" (but {len(ignored):,} other files, such as {ignored[0]})" if ignored else ""
        raise UserError(f"{data}: no pictures in it{others}; pictures end in {', '.join(PICTURES)}")
    top = listed["path"].str.partition("/")[0]
    if {"train_images", "test_images"} & set(top):
        return _kaggle(url, data, listed, ignored, labelled)
    if not labelled:
        return Source(url, listed.assign(label="", split=""), "unlabelled", ignored)
    if set(top) <= set(SPLITS) and top.nunique() > 1 and (listed["path"].str.count("/") >= 2).all():
        rest = listed["path"].str.partition("/")[2]
        labels, splits = rest.str.partition("/")[0], top.map(SPLITS)
        return _checked(Source(url, listed.assign(label=labels, split=splits), "split folders", ignored), data)
    return _checked(_class_folders(url, data, listed, ignored), data)


def inputs_hash(source: Source, config: Data) -> str:
    """A fingerprint of the listing and the settings (hex): cheap to make, other when any file or setting is."""
    settings = json.dumps(configuration.to_dict(config), sort_keys=True)
    digest = hashlib.sha256(f"{source.root}\n{settings}\n".encode())
    columns = [source.files[name].astype(str) for name in ("path", "label", "split", "bytes", "stamp")]
    digest.update("\n".join("\t".join(row) for row in zip(*columns, strict=True)).encode())
    return digest.hexdigest()


def _list(url: str) -> tuple[pd.DataFrame, list[str]]:
    """All pictures below a folder (path, bytes, stamp), sorted, and the paths of files that are none. Hidden files do not exist."""
    rows = _list_remote(url) if storage.is_remote(url) else _list_local(url)
    pictures = sorted(row for row in rows if row[0].lower().endswith(PICTURES))
    ignored = sorted(row[0] for row in rows if not row[0].lower().endswith(PICTURES))
    table = pd.DataFrame(pictures, columns=["path", "bytes", "stamp"]).astype({"path": str, "bytes": "int64", "stamp": str})
    return table, ignored


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _list_local(root: str) -> list[tuple[str, int, str]]:
    rows, waiting, seen = [], [(root, "")], set()
    while waiting:
        folder, prefix = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(folder):  # a link back up would be followed for ever
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except PermissionError as error:
            raise UserError(f"{folder}: may not be read; give yourself permission, or move the pictures") from error
        for entry in entries:
            if _hidden(entry.name):
                continue
            if not entry.name.isprintable() or any("\udc80" <= letter <= "\udcff" for letter in entry.name):
                raise UserError(f"{folder}: holds a file whose name is not readable text, {entry.name!r}; rename it")
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # a link to nothing: listed, so that preparation reports it as unreadable
                    rows.append((f"{prefix}{entry.name}", 0, ""))
                    continue
                rows.append((f"{prefix}{entry.name}", stat.st_size, str(stat.st_mtime_ns)))
    return rows


def _list_remote(root: str) -> list[tuple[str, int, str]]:
    return [row for row in storage.listing(root) if not any(_hidden(part) for part in row[0].split("/"))]


def _class_folders(url: str, data: str, listed: pd.DataFrame, ignored: list[str]) -> Source:
    """root/<class>/**/picture; the label is the first folder's name."""
    parts = listed["path"].str.partition("/")
    loose = listed["path"][parts[1] == ""]
    if len(loose):
        raise UserError(
            f"{data}: {len(loose):,} pictures lie outside any class folder, such as {loose.iloc[0]}; expected {data}/<class>/picture.jpg. "
            "Move them into class folders, or give a CSV with path and label columns"
        )
    return Source(url, listed.assign(label=parts[0], split=""), "class folders", ignored)


def _kaggle(url: str, data: str, listed: pd.DataFrame, ignored: list[str], labelled: bool) -> Source:
    """A competition folder as it unpacks: train_images/<class>/ and test_images/, either one folder deeper in some copies."""
    samples = [name for name in ignored if name.lower().endswith(".csv") and _header(storage.join(url, name)) == ["id", "category"]]
    samples = [name for name in samples if "answer" not in name.lower()]
    sample = storage.join(url, samples[0]) if len(samples) == 1 else None

    def below(name: str) -> tuple[str, pd.DataFrame]:
        prefix = f"{name}/{name}/" if listed["path"].str.startswith(f"{name}/{name}/").any() else f"{name}/"
        mine = listed[listed["path"].str.startswith(prefix)]
        return storage.join(url, prefix.rstrip("/")), mine.assign(path=mine["path"].str.slice(len(prefix))).reset_index(drop=True)

    test_root, test = below("test_images")
    if not labelled:
        if test.empty:
            raise UserError(f"{data}: has no test_images/ with pictures to predict")
        return Source(test_root, test.assign(label="", split=""), "kaggle test pictures", ignored, sample_submission=sample)
    train_root, train = below("train_images")
    if train.empty:
        raise UserError(f"{data}: has no pictures in train_images/<class>/ to train on")
    found = _class_folders(train_root, f"{data}/train_images", train, ignored)
    whole = Source(train_root, found.files, "kaggle", ignored, None if test.empty else test_root, sample)
    return _checked(whole, f"{data}/train_images")


def _header(url: str) -> list[str]:
    first = storage.read_bytes(url).splitlines()[:1]
    return first[0].decode("utf-8-sig", "replace").strip().split(",") if first else []


def _checked(source: Source, data: str) -> Source:
    """Refuse what cannot be classified: fewer than two classes, a class folder without pictures."""
    classes = sorted(source.files["label"].unique())
    if not storage.is_remote(source.root) and source.kind in ("class folders", "kaggle"):
        folders = sorted(entry.name for entry in os.scandir(source.root) if entry.is_dir() and not _hidden(entry.name))
        empty = [name for name in folders if name not in set(classes)]
        if empty:
            raise UserError(f"{data}: class folders without pictures: {', '.join(empty[:5])}; add pictures or remove them")
    if len(classes) < 2:
        raise UserError(f"{data}: only one class, {classes[0]!r}; a classifier needs at least two class folders")
    return source


def _table(url: str, config: Data, labelled: bool) -> Source:
    """A CSV, TSV or Parquet table with a path column, a label column and perhaps a split column; paths relative to the table's folder, or whole."""
    try:
        content = storage.explained(url, lambda: storage.read_bytes(url))
    except FileNotFoundError as error:
        raise UserError(f"{url}: there is no such table") from error
    table = _parsed(url, content)
    wanted = [config.path_column] + ([config.label_column] if labelled else [])
    for number, column in enumerate(wanted):
        if column not in table.columns:
            hint = configuration.nearest(column, map(str, table.columns))
            key = "data.path_column" if number == 0 else "data.label_column"
            raise UserError(f"{url}: has no column {column!r}, only {', '.join(map(repr, table.columns))}{hint}; name it with --set {key}=...")
    paths = table[config.path_column].astype("string").str.strip()
    _refuse_rows(url, paths.isna() | (paths == ""), "have no path")
    labels = table[config.label_column].astype("string").str.strip() if labelled else pd.Series("", index=table.index, dtype="string")
    if labelled:
        _refuse_rows(url, labels.isna() | (labels == ""), "have no label")
    splits = pd.Series("", index=table.index, dtype="string")
    if labelled and config.split_column in table.columns:
        given = table[config.split_column].astype("string").str.strip().str.lower().fillna("")
        splits = given.map({**SPLITS, "": ""})
        _refuse_rows(url, splits.isna(), f"have a {config.split_column} other than train, val, test")
    folder = posixpath.dirname(url)
    full = paths.map(lambda path: path if storage.is_remote(path) else storage.join(folder, path))
    _refuse_rows(url, full.duplicated(keep="first"), "name a picture that an earlier row names already; one row a picture")
    root = folder
    if not full.str.startswith(f"{folder}/").all():
        root = posixpath.dirname(os.path.commonprefix([f"{posixpath.dirname(path)}/" for path in full]))  # noqa: RUF071 (commonpath would make s3:/ of s3://)
    sizes, stamps = _facts(url, full, root)
    rows = pd.DataFrame({"path": full.str.slice(len(root.rstrip("/")) + 1), "bytes": sizes, "stamp": stamps, "label": labels, "split": splits})
    rows = rows.astype({"path": str, "label": str, "split": str, "stamp": str, "bytes": "int64"}).sort_values("path", ignore_index=True)
    if labelled and rows["label"].nunique() < 2:
        raise UserError(f"{url}: only one class, {rows['label'].iloc[0]!r}; a classifier needs at least two" if len(rows) else f"{url}: has no rows")
    return Source(root, rows, "table")


def _parsed(url: str, content: bytes) -> pd.DataFrame:
    try:
        if url.lower().endswith(".parquet"):
            return storage.as_table(content)
        separator = "\t" if url.lower().endswith(".tsv") else ","
        return pd.read_csv(io.BytesIO(content), sep=separator, dtype="string", encoding="utf-8-sig", keep_default_na=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text (byte {error.start}); save it as UTF-8 and try again") from error
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{url}: cannot be read as a table: {str(error).splitlines()[0]}") from error


def _refuse_rows(url: str, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        lines = [str(number + 2) for number in wrong.to_numpy().nonzero()[0]]  # as an editor counts, behind the header
        raise UserError(f"{url}: {len(lines):,} rows {what}: line {', '.join(lines[:5])}{', ...' if len(lines) > 5 else ''}")


def _facts(url: str, full: pd.Series, root: str) -> tuple[list[int], list[str]]:
    """Size and stamp of every file of a table. Raises UserError naming those that are missing."""
    if storage.is_remote(root):
        there = {storage.join(root, path): (size, stamp) for path, size, stamp in _list_remote(root)}
    else:
        there = {}
        for path in full:
            if os.path.isfile(path):
                stat = os.stat(path)
                there[path] = (stat.st_size, str(stat.st_mtime_ns))
    missing = [path for path in full if path not in there]
    if missing:
        raise UserError(
            f"{url}: {len(missing):,} of {len(full):,} files do not exist, such as {', '.join(missing[:3])}; paths are relative to {root}"
        )
    return [there[path][0] for path in full], [there[path][1] for path in full]

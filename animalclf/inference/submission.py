"""submission.csv of a Kaggle competition (`id,category`, see image_ids): write, check against a sample, score
against answers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from animalclf.errors import UserError
from animalclf.metrics import from_confusion
from animalclf.utils import storage
from animalclf.utils.text import reason

COLUMNS = ("id", "category")


def first_images(paths: Iterable[str], limit: int) -> list[str]:
    """The first `limit` of the images `paths`, 0 for all. Raises UserError for a negative number."""
    if limit < 0:
        raise UserError(f"limit: {limit} is not a number of images; 0 for all")
    return list(paths)[: limit or None]


def image_ids(paths: Iterable[str]) -> list[str]:
    """The id of each image: its file name with extension; if two folders hold the same name, the path of each image."""
    paths = list(paths)
    names = [path.rsplit("/", 1)[-1] for path in paths]
    return names if len(set(names)) == len(names) else paths


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorting key that compares numbers as numbers: 2.jpeg before 10.jpeg."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part)


def write(url: str, ids: Sequence[str], predicted: Sequence[str], columns: Sequence[str] = COLUMNS) -> None:
    """Write one row per image, sorted by `natural_key` of the id. Raises UserError for a repeated id or if `url`
    cannot be written."""
    _check_unique(ids, url)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    class_of = dict(zip(ids, predicted, strict=True))
    writer.writerows((name, class_of[name]) for name in sorted(ids, key=natural_key))
    storage.write_bytes(url, sink.getvalue().encode())


def read(url: str) -> pd.DataFrame:
    """A CSV of two columns, id and class (of any header), every value as text. Raises UserError for any other file."""
    try:
        table = pd.read_csv(io.BytesIO(storage.read_bytes(url)), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not a CSV file in UTF-8 ({reason(error)})") from error
    if table.shape[1] != 2:
        columns = ", ".join(map(str, table.columns))
        raise UserError(f"{url}: a submission has two columns, id and class; this has {columns}")
    return table


def check_same_ids(ids: Iterable[str], file_ids: Iterable[str], file: str) -> None:
    """Raises UserError, naming the first few, if the images' `ids` and the `file_ids` of the file differ, or an id
    of the file is repeated."""
    listed, known = list(file_ids), list(ids)
    _check_unique(listed, file)
    missing = sorted(set(listed) - set(known), key=natural_key)
    extra = sorted(set(known) - set(listed), key=natural_key)
    if missing or extra:
        parts = [f"{len(missing):,} of its ids have no image ({_first_few(missing)})"] if missing else []
        parts += [f"{len(extra):,} images are not in it ({_first_few(extra)})"] if extra else []
        raise UserError(
            f"{file}: other ids than the images': {'; '.join(parts)}; predict the folder that the file belongs to, "
            "without --limit"
        )


def columns_like(sample: str | None, ids: Sequence[str]) -> Sequence[str]:
    """The header of a submission: that of the file `sample`, or COLUMNS. Raises UserError if its ids are not
    `ids`."""
    if not sample:
        return COLUMNS
    table = read(sample)
    check_same_ids(ids, table.iloc[:, 0], sample)
    return list(table.columns)


def check(submission: str, sample: str, classes: Sequence[str]) -> None:
    """Compare a submission file with a sample: the same header and ids, every id once, known classes. Raises UserError
    naming the first rows that differ."""
    table, sample_table = read(submission), read(sample)
    if list(table.columns) != list(sample_table.columns):
        header, sample_header = ",".join(table.columns), ",".join(sample_table.columns)
        raise UserError(f"{submission}: the header is {header}, the sample's is {sample_header}")
    _check_unique(table.iloc[:, 0], submission)
    check_same_ids(table.iloc[:, 0], sample_table.iloc[:, 0], sample)
    unknown = table[~table.iloc[:, 1].isin(list(classes))]
    if len(unknown):
        rows = [f"{name}: {category!r}" for name, category in zip(unknown.iloc[:, 0], unknown.iloc[:, 1], strict=True)]
        raise UserError(
            f"{submission}: {len(unknown):,} rows name no known class ({_first_few(rows)}); "
            f"classes: {', '.join(classes)}"
        )


def score(submission: str, answers: str) -> dict[str, float]:
    """The score of a submission: `rows` and every metric of counts, against a CSV of the true classes with the same
    ids."""
    table, truth = read(submission), read(answers)
    _check_unique(table.iloc[:, 0], submission)
    check_same_ids(table.iloc[:, 0], truth.iloc[:, 0], answers)
    predicted = dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True))
    numbers = {name: number for number, name in enumerate(sorted({*truth.iloc[:, 1], *predicted.values()}))}
    confusion = np.zeros((len(numbers), len(numbers)), np.int64)
    for image, name in zip(truth.iloc[:, 0], truth.iloc[:, 1], strict=True):
        confusion[numbers[name], numbers[predicted[image]]] += 1
    return {"rows": len(truth), **from_confusion(confusion)}


def _check_unique(ids: Iterable[str], file: str) -> None:
    counts = pd.Series(list(ids), dtype=str).value_counts()
    repeated = sorted(counts.index[counts > 1], key=natural_key)
    if repeated:
        raise UserError(f"{file}: {len(repeated):,} ids occur more than once ({_first_few(repeated)})")


def _first_few(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")

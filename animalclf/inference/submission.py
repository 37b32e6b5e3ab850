"""submission.csv as the competition wants it (`id,category`, the id being the file name): written, checked against a sample, scored against
answers."""

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

COLUMNS = ("id", "category")


def first_images(paths: Iterable[str], limit: int) -> list[str]:
    """The first `limit` of the images `paths`, 0 for all. Raises UserError for a negative number."""
    if limit < 0:
        raise UserError(f"limit: {limit} is not a number of images; 0 for all")
    return list(paths)[: limit or None]


def ids_of(paths: Iterable[str]) -> list[str]:
    """The id of every picture: its file name with extension. Raises UserError where two folders hold the same name."""
    seen: dict[str, str] = {}
    for path in paths:
        name = path.rsplit("/", 1)[-1]
        if name in seen:
            raise UserError(
                f"{seen[name]} and {path} have the same file name, so the id {name!r} is ambiguous; rename one, or predict the folders apart"
            )
        seen[name] = path
    return list(seen)


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorting key that counts numbers as numbers: 2.jpeg before 10.jpeg."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part)


def write(url: str, ids: Sequence[str], classes_predicted: Sequence[str], columns: Sequence[str] = COLUMNS) -> None:
    """Write one row a picture in the natural order of the ids. Raises UserError for an id that occurs twice or an unwritable place."""
    _once(ids, url)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    predicted = dict(zip(ids, classes_predicted, strict=True))
    writer.writerows((name, predicted[name]) for name in sorted(ids, key=natural))
    storage.write_bytes(url, sink.getvalue().encode())


def read(url: str) -> pd.DataFrame:
    """A CSV of two columns, id and class (called as they like), every value as text. Raises UserError where it is none."""
    try:
        table = pd.read_csv(io.BytesIO(storage.read_bytes(url)), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not a CSV file in UTF-8 ({error})") from error
    if table.shape[1] != 2:
        raise UserError(
            f"{url}: a submission has two columns, id and class; this has {', '.join(map(str, table.columns))}"
        )
    return table


def same_ids(ids: Iterable[str], wanted: Iterable[str], origin: str) -> None:
    """Raises UserError, naming the first few, where `ids` and the ids `wanted` by the file `origin` are not the same, each once."""
    listed, known = list(wanted), list(ids)
    _once(listed, origin)
    missing, extra = sorted(set(listed) - set(known), key=natural), sorted(set(known) - set(listed), key=natural)
    if missing or extra:
        parts = [f"{len(missing):,} of its ids have no picture ({_some(missing)})"] if missing else []
        parts += [f"{len(extra):,} pictures are not in it ({_some(extra)})"] if extra else []
        raise UserError(
            f"{origin}: other ids than the pictures': {'; '.join(parts)}; predict the folder that the file belongs to, without --limit"
        )


def columns_like(sample: str | None, ids: Sequence[str]) -> Sequence[str]:
    """The header of a submission: that of the file `sample`, where one is given. Raises UserError where its ids are not `ids`."""
    if not sample:
        return COLUMNS
    table = read(sample)
    same_ids(ids, table.iloc[:, 0], sample)
    return list(table.columns)


def check(submission: str, sample: str, classes: Sequence[str]) -> None:
    """Compare a submission file with a sample: the same header and ids, every id once, known classes. Raises UserError naming the first offenders."""
    ours, wanted = read(submission), read(sample)
    if list(ours.columns) != list(wanted.columns):
        raise UserError(
            f"{submission}: the header is {','.join(ours.columns)}, the sample's is {','.join(wanted.columns)}"
        )
    _once(ours.iloc[:, 0], submission)
    same_ids(ours.iloc[:, 0], wanted.iloc[:, 0], sample)
    unknown = ours[~ours.iloc[:, 1].isin(list(classes))]
    if len(unknown):
        rows = [f"{name}: {category!r}" for name, category in zip(unknown.iloc[:, 0], unknown.iloc[:, 1], strict=True)]
        raise UserError(
            f"{submission}: {len(unknown):,} rows name no known class ({_some(rows)}); classes: {', '.join(classes)}"
        )


def score(submission: str, answers: str) -> dict[str, float]:
    """What a submission would have scored: rows and every metric of counts, against a CSV of the true classes with the same ids."""
    ours, truth = read(submission), read(answers)
    _once(ours.iloc[:, 0], submission)
    same_ids(ours.iloc[:, 0], truth.iloc[:, 0], answers)
    claimed = dict(zip(ours.iloc[:, 0], ours.iloc[:, 1], strict=True))
    numbers = {name: number for number, name in enumerate(sorted({*truth.iloc[:, 1], *claimed.values()}))}
    confusion = np.zeros((len(numbers), len(numbers)), np.int64)
    for image, name in zip(truth.iloc[:, 0], truth.iloc[:, 1], strict=True):
        confusion[numbers[name], numbers[claimed[image]]] += 1
    return {"rows": len(truth), **from_confusion(confusion)}


def _once(ids: Iterable[str], origin: str) -> None:
    counted = pd.Series(list(ids), dtype=str).value_counts()
    twice = sorted(counted.index[counted > 1], key=natural)
    if twice:
        raise UserError(f"{origin}: {len(twice):,} ids occur more than once ({_some(twice)})")


def _some(names: Sequence[str], show: int = 5) -> str:
    return ", ".join(names[:show]) + (", ..." if len(names) > show else "")

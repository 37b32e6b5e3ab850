"""submission.csv of a Kaggle competition (`id,category`, see image_ids, or in the form of a sample): write,
score against answers."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from animalclf.errors import UserError
from animalclf.metrics import from_confusion
from animalclf.predictions import class_probabilities
from animalclf.prepare.sources.table_file import WORKBOOK_ERROR, WORKBOOKS, decode_text, parse_csv
from animalclf.utils import storage
from animalclf.utils.text import count_clause, cut, printable, reason

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


@dataclass(frozen=True)
class Form:
    """The form of a submission. `ids`: its ids in order, those of the sample or of the images in natural order; `rows`:
    the row of each id in the table of predictions. `classes`: the class of each column after the id if the columns are
    probabilities, empty if the second column is the predicted class. `separator`: between the columns. `decimal`: mark
    in a probability. `note`: what should be checked, "" if nothing."""

    columns: list[str]
    ids: list[str]
    rows: list[int]
    classes: list[str] = field(default_factory=list)
    separator: str = ","
    decimal: str = "."
    note: str = ""


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
    table, _ = _read_table(url)
    if table.shape[1] != 2:
        columns = _first_few(list(map(str, table.columns)))
        raise UserError(f"{url}: a submission has two columns, id and class; this has {columns}")
    return table


def _read_table(url: str) -> tuple[pd.DataFrame, str]:
    """A CSV with every value as text, and its separator. Raises UserError for any other file, and for one of a single
    column."""
    try:
        content = storage.read_bytes(url)
        if content.startswith(WORKBOOKS):
            raise UserError(WORKBOOK_ERROR.format(url))
        text, separator = decode_text(content, url, COLUMNS[0])
        table = parse_csv(text, separator).astype(str)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file") from error
    except (ValueError, csv.Error) as error:  # of pandas too
        raise UserError(f"{url}: not a CSV file in UTF-8 ({reason(error)})") from error
    if table.shape[1] < 2:
        columns = _first_few(list(map(str, table.columns)))
        raise UserError(f"{url}: a submission has two columns, id and class; this has {columns}")
    return table, separator


def check_same_ids(ids: Iterable[str], file_ids: Iterable[str], file: str) -> None:
    """Raises UserError, naming the first few, if the images' `ids` and the `file_ids` of the file differ, or an id
    of the file is repeated."""
    listed, known = list(file_ids), list(ids)
    _check_unique(listed, file)
    missing = sorted(set(listed) - set(known), key=natural_key)
    extra = sorted(set(known) - set(listed), key=natural_key)
    if missing or extra:
        parts = [f"{len(missing):,} of its ids without an image ({_first_few(missing)})"] if missing else []
        parts += [f"{count_clause(len(extra), 'image', 'are not in it')} ({_first_few(extra)})"] if extra else []
        raise UserError(
            f"{file}: other ids than the images': {'; '.join(parts)}; predict the folder that the file belongs to, "
            "without --limit"
        )


def form_like(sample: str | None, ids: Sequence[str], classes: Sequence[str] | None = None) -> Form:
    """The form of a submission for the images `ids`: that of the file `sample`, or `id,category`. The ids of the sample
    may be file names without folder or suffix, in any letter case. More than two columns are probabilities, one column
    per class.

    `classes`: the model's, None if they are not known yet. Raises UserError if the ids are not those of the images, and
    if the columns are not the classes.
    """
    if not sample:
        order = sorted(range(len(ids)), key=lambda row: natural_key(ids[row]))
        return Form(list(COLUMNS), [ids[row] for row in order], order)
    table, separator = _read_table(sample)
    columns, sample_ids = list(table.columns), table.iloc[:, 0].tolist()
    names = _ids_as_in(sample_ids, ids)
    check_same_ids(names, sample_ids, sample)
    row_of = {name: row for row, name in enumerate(names)}
    classes_of_columns = [name.strip() for name in columns[1:]] if len(columns) > 2 else []
    if classes_of_columns and classes is not None and sorted(classes_of_columns) != sorted(classes):
        missing = [name for name in classes if name not in classes_of_columns]
        extra = [name for name in classes_of_columns if name not in classes]
        parts = [f"no column for {_first_few(missing)}"] if missing else []
        parts += [f"columns that are no class: {_first_few(extra)}"] if extra else []
        raise UserError(
            f"{sample}: a sample submission has an id and a class, or an id and one column per class of the model; "
            f"this has {'; '.join(parts) or 'a class twice'}"
        )
    note = "" if classes_of_columns or classes is None else _values_note(sample, table, classes)
    decimal = _decimal_mark(sample, table) if classes_of_columns else "."
    rows = [row_of[name] for name in sample_ids]
    return Form(columns, sample_ids, rows, classes_of_columns, separator, decimal, note)


def _decimal_mark(sample: str, table: pd.DataFrame) -> str:
    """The mark in the sample's probabilities, "." or ",". Raises UserError if both occur."""
    values = table.iloc[:, 1:].stack()
    point, comma = (values.str.contains(rf"[{mark}]\d") for mark in ".,")
    if point.any() and comma.any():
        raise UserError(
            f"{sample}: has numbers with a decimal point ({values[point].iloc[0]}) and with a comma "
            f"({values[comma].iloc[0]}); use one of them"
        )
    return "," if comma.any() else "."


def _values_note(sample: str, table: pd.DataFrame, classes: Sequence[str]) -> str:
    """A note if the values of the sample's second column are no classes of the model."""
    values = table.iloc[:, 1].str.strip()
    values = values[values != ""]
    if values.empty or values.isin(classes).any():
        return ""
    return (
        f"{sample}: its column {table.columns[1]!r} has values such as {values.iloc[0]!r}, which are no classes of the "
        "model; the submission has class names there. If the competition expects probabilities, take them from "
        "predictions.parquet"
    )


def _ids_as_in(sample_ids: Sequence[str], ids: Sequence[str]) -> Sequence[str]:
    """The images' ids in the form of the sample's: as they are, without folder, without suffix, or without both, each
    in the letter case of the sample if that is unambiguous."""
    listed = set(sample_ids)
    names = [name.rsplit("/", 1)[-1] for name in ids]
    forms = (ids, names, [_stem(name) for name in ids], [_stem(name) for name in names])
    unambiguous = [form for form in forms if len(set(form)) == len(set(ids))]
    form = max(unambiguous, key=lambda form: len(listed.intersection(form)))
    if listed <= set(form):
        return form
    in_sample = {name.strip().casefold(): name for name in sample_ids}
    without_folder = {name.rpartition("/")[2]: folded for folded, name in in_sample.items()}
    if len(without_folder) == len(in_sample):  # the sample has test/1.jpg, and test/ was predicted
        in_sample |= {name.casefold(): in_sample[folded] for name, folded in without_folder.items()}
    renamed = [[in_sample.get(name.casefold(), name) for name in form] for form in unambiguous]
    distinct: list[Sequence[str]] = [form, *(names for names in renamed if len(set(names)) == len(names))]
    return max(distinct, key=lambda names: len(listed.intersection(names)))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def write_form(url: str, form: Form, table: pd.DataFrame) -> None:
    """Write the submission of a table of predictions (see predictions_table). Raises UserError if `url` cannot be
    written."""
    rows = table.iloc[form.rows]
    if form.classes:
        probabilities = class_probabilities(rows, form.classes).tolist()
        values = [[f"{value:.6g}".replace(".", form.decimal) for value in row] for row in probabilities]
    else:
        values = [[name] for name in rows["predicted"]]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n", delimiter=form.separator)
    writer.writerow(form.columns)
    writer.writerows([name, *row] for name, row in zip(form.ids, values, strict=True))
    storage.write_bytes(url, sink.getvalue().encode())


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
    return ", ".join(cut(printable(name)) for name in names[:count]) + (", ..." if len(names) > count else "")

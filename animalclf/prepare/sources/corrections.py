"""Corrections of labels: the file of `animalclf labels` with the decisions that a person filled in, applied to the list
of labelled images. The image files are not touched."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from animalclf.config import Data
from animalclf.data.prepared_set import CorrectionsRecord, Decision
from animalclf.errors import UserError
from animalclf.prepare.sources.table_file import read_table
from animalclf.utils import storage
from animalclf.utils.registry import nearest
from animalclf.utils.text import shown

KEEP, RELABEL, DROP = "keep", "relabel", "drop"
DECISIONS = (KEEP, RELABEL, DROP)
COLUMNS = ("path", "label", "suggested", "decision")
MAX_NAMED = 5  # lines, files or classes in an error


def correct(files: pd.DataFrame, file: str, data: str) -> tuple[pd.DataFrame, CorrectionsRecord]:
    """`files` (the images of `data`: columns path, label and others) with the decisions of the table `file`, and what
    was decided.

    A row of `file` names an image by its path and its label. An editor may have changed slashes to backslashes, or NFC
    to NFD; names that are not those of `files` are looked up without these differences. `decision`: keep, relabel (to
    the class in `suggested`), drop, or nothing, which leaves the image as it is. Raises UserError for a file without
    these columns or without any decision; for lines with another decision, of unknown images or classes, of another
    label than the image's, or that contradict each other; and if a class loses all of its images.
    """
    url = storage.absolute(file)
    table = _read(url)
    table = table.assign(
        path=_as_listed(table["path"], files["path"]),
        label=_as_listed(table["label"], files["label"]),
        suggested=_as_listed(table["suggested"], files["label"]),
    )
    decided = table[table["decision"] != ""]
    _check_decisions(url, table)
    _check_images(url, decided, files, data)
    decided = decided.drop_duplicates("path")
    by_path = decided.set_index("path")
    decision = files["path"].map(by_path["decision"]).fillna("")
    corrected = files.assign(label=files["label"].where(decision != RELABEL, files["path"].map(by_path["suggested"])))
    corrected = corrected[decision != DROP].reset_index(drop=True)
    lost = sorted(set(files["label"]) - set(corrected["label"]))
    if lost:
        raise UserError(
            f"{url}: no image is left in class {', '.join(map(repr, lost[:MAX_NAMED]))}; keep some, or remove the "
            "class from the images"
        )
    counts = decided["decision"].value_counts()
    record = CorrectionsRecord(
        file=url,
        relabelled=int(counts.get(RELABEL, 0)),
        dropped=int(counts.get(DROP, 0)),
        kept=int(counts.get(KEEP, 0)),
        undecided=int((table["decision"] == "").sum()),
        decisions=_decisions(decided),
    )
    return corrected, record


def corrections_text(record: CorrectionsRecord) -> str:
    """`labels.csv: 12 relabelled, 3 dropped, 35 kept, 2 without a decision`."""
    names = {"relabelled": "relabelled", "dropped": "dropped", "kept": "kept", "undecided": "without a decision"}
    counts = ", ".join(f"{record[key]:,} {name}" for key, name in names.items() if record[key])  # type: ignore[literal-required]
    return f"{record['file'].rsplit('/', 1)[-1]}: {counts}"


def decisions_hash(record: CorrectionsRecord | None) -> str:
    """SHA-256 (hex) of what was decided; empty without corrections."""
    if not record:
        return ""
    rows = sorted("\t".join(decision[name] for name in COLUMNS) for decision in record["decisions"])  # type: ignore[literal-required]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def filled_decisions(url: str) -> list[Decision]:
    """The decisions in a file of corrections. Raises UserError for a file that is not one."""
    table = _read(url)
    return _decisions(table[table["decision"] != ""])


def _decisions(decided: pd.DataFrame) -> list[Decision]:
    rows = decided[[*COLUMNS]].to_numpy()
    return [Decision(path=row[0], label=row[1], suggested=row[2], decision=row[3]) for row in rows]


def _read(url: str) -> pd.DataFrame:
    """The columns of COLUMNS as text, decisions in lower case; the index is that of the file's rows."""
    table = read_table(url, Data())
    names = {str(name).strip().casefold(): name for name in table.columns}
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(
            f"{url}: has no column {', '.join(map(repr, missing))}; corrections are the labels.csv of `animalclf "
            f"labels`, with the columns {', '.join(COLUMNS)}"
        )
    text = table[[names[name] for name in COLUMNS]].astype("string").fillna("").astype(str)
    text = text.set_axis(list(COLUMNS), axis=1)
    for name in ("label", "suggested", "decision"):
        text[name] = text[name].str.strip()
    return text.assign(decision=text["decision"].str.lower())


def _as_listed(names: pd.Series, listed: Iterable[str]) -> pd.Series:
    """`names`, those that differ from exactly one of `listed` in slashes or Unicode normalization only as that one."""
    known = set(listed)
    counts = Counter(map(_plain_form, known))
    by_form = {form: name for name in known if counts[form := _plain_form(name)] == 1}
    return names.map(lambda name: name if name in known else by_form.get(_plain_form(name), name))


def _plain_form(name: str) -> str:
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def _check_decisions(url: str, table: pd.DataFrame) -> None:
    """Raise UserError for decisions that are not known, missing or contradictory."""
    decision = table["decision"]
    unknown = ~decision.isin(["", *DECISIONS])
    first = ", ".join(map(shown, decision[unknown].head(1)))
    _refuse(url, unknown, f"another decision than {', '.join(DECISIONS)}: {first}")
    if (decision == "").all():
        raise UserError(f"{url}: no decision is filled in; write {KEEP}, {RELABEL} or {DROP} into the column decision")
    relabel = decision == RELABEL
    _refuse(url, relabel & (table["suggested"] == ""), f"{RELABEL}, but there is no class in the column suggested")
    remedy = f"write {KEEP}, or another class into the column suggested"
    _refuse(url, relabel & (table["suggested"] == table["label"]), f"{RELABEL} to the label that it has; {remedy}")
    decided = table[decision != ""]
    effect = decided["decision"] + "\t" + decided["suggested"].where(decided["decision"] == RELABEL, "")
    contradictory = effect.groupby(decided["path"]).transform("nunique") > 1
    _refuse(url, contradictory, "different decisions for one image; leave one of them")


def _check_images(url: str, decided: pd.DataFrame, files: pd.DataFrame, data: str) -> None:
    """Raise UserError for unknown images and classes, and for labels that are not those of the images."""
    labels = dict(zip(files["path"], files["label"], strict=True))
    unknown = ~decided["path"].isin(labels)
    if unknown.all():
        raise UserError(
            f"{url}: names none of the {len(files):,} images of {data} (first {shown(decided['path'].iloc[0])}): are "
            "these the corrections of another data set?"
        )
    first = ", ".join(map(shown, decided.loc[unknown, "path"].head(1)))
    _refuse(url, unknown, f"no such image in {data}: {first}; remove these lines")
    image_labels = decided["path"].map(labels)
    other = decided["label"] != image_labels
    example = next(zip(decided.loc[other, "label"], image_labels[other], strict=True), ("", ""))
    _refuse(
        url,
        other,
        f"the label is {example[0]!r}, but the image's is {example[1]!r} in {data}; corrections begin from the labels "
        "of the data: run `animalclf labels` again, or correct these lines",
    )
    classes = set(files["label"])
    unknown_class = (decided["decision"] == RELABEL) & ~decided["suggested"].isin(classes)
    name = next(iter(decided.loc[unknown_class, "suggested"]), "")
    _refuse(url, unknown_class, f"no class {name!r} in {data}{nearest(name, classes)}")


def _refuse(url: str, wrong: pd.Series, problem: str) -> None:
    """Raise UserError with the numbers of the lines that are `wrong`, if there are any."""
    numbers = [str(row + 2) for row in wrong.index[wrong]]  # from 1, after the header
    if numbers:
        more = f", ... ({len(numbers):,} lines)" if len(numbers) > MAX_NAMED else ""
        raise UserError(f"{url}, line {', '.join(numbers[:MAX_NAMED])}{more}: {problem}")

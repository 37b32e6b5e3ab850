"""The majority vote over submission files: the reference notebook's ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from animalclf.errors import UserError
from animalclf.inference import mixing, submission
from animalclf.rows import VoteResult
from animalclf.utils import storage
from animalclf.utils.text import printable


def vote_submissions(files: Sequence[str], out: str) -> VoteResult:
    """The majority vote over submission files, the best model's first; a tie goes to the tied class of the first file.

    Writes `out` (a .csv file, or a folder for submission.csv). Raises UserError for fewer than two files, and, naming
    the file and its first differing id, for another header, a repeated id, or other ids than in the first file.
    """
    if len(files) < 2:
        raise UserError("a vote needs at least two submission files")
    tables = {file: submission.read(file) for file in files}
    if len(tables) < len(files):
        repeated = next(file for file in files if list(files).count(file) > 1)
        raise UserError(f"{repeated}: given twice; a file has one vote")
    first = files[0]
    columns, ids = list(tables[first].columns), tables[first].iloc[:, 0].tolist()
    for file, table in tables.items():
        if list(table.columns) != columns:
            header, expected = (printable(",".join(names)) for names in (table.columns, columns))
            raise UserError(f"{file}: the header is {header}, that of {first} is {expected}")
        file_ids = table.iloc[:, 0]
        if file_ids.duplicated().any():
            repeated = file_ids[file_ids.duplicated()].iloc[0]
            raise UserError(f"{file}: the id {repeated!r} occurs more than once; every image has one row")
        _check_same_ids(file, file_ids.tolist(), first, ids)
    classes_by_id = [dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True)) for table in tables.values()]
    names = sorted({name for votes in classes_by_id for name in votes.values()})
    number = {name: position for position, name in enumerate(names)}
    votes = np.array([[number[by_id[image]] for image in ids] for by_id in classes_by_id], np.int64)
    votes = votes.reshape(len(files), len(ids))  # also without ids
    winners = mixing.majority_vote(votes)
    counts = (votes[:, :, None] == np.arange(len(names))).sum(0)
    target = storage.absolute(out)
    target = target if target.endswith(".csv") else storage.join(target, "submission.csv")
    submission.write(target, ids, [names[winner] for winner in winners], columns)
    return VoteResult(
        files=[storage.absolute(file) for file in files],
        submission=target,
        rows=len(ids),
        unanimous=int((votes == votes[0]).all(0).sum()),
        ties=int(((counts == counts.max(1, keepdims=True)).sum(1) > 1).sum()) if ids else 0,
        changed=int((winners != votes[0]).sum()),
    )


def _check_same_ids(file: str, ids: Sequence[str], first: str, first_ids: Sequence[str]) -> None:
    extra = sorted(set(ids) - set(first_ids), key=submission.natural_key)
    missing = sorted(set(first_ids) - set(ids), key=submission.natural_key)
    if extra or missing:
        parts = [f"{len(extra):,} not in {first} (first {extra[0]!r})"] if extra else []
        parts += [f"{len(missing):,} missing (first {missing[0]!r})"] if missing else []
        difference = "; ".join(parts)
        raise UserError(f"{file}: other ids than {first}: {difference}; vote over submissions for the same images")

"""The majority vote over submission files that exist already: the seed's ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from animalclf.errors import UserError
from animalclf.inference import mixing, submission
from animalclf.rows import VoteResult
from animalclf.utils import storage


def vote_submissions(files: Sequence[str], out: str) -> VoteResult:
    """The majority vote over submission files, the best model's first; ties go to the first file that voted for one of the tied classes.

    Writes `out` (a .csv file, or a folder for submission.csv). Raises UserError for fewer than two files, and, naming the file and its first
    differing id, for another header, an id that occurs twice, or other ids than in the first file.
    """
    if len(files) < 2:
        raise UserError("a vote needs at least two submission files")
    tables = {file: submission.read(file) for file in files}
    if len(tables) < len(files):
        raise UserError(
            f"{next(file for file in files if list(files).count(file) > 1)}: given twice; a file has one vote"
        )
    columns, ids = list(tables[files[0]].columns), tables[files[0]].iloc[:, 0].tolist()
    for file, table in tables.items():
        if list(table.columns) != columns:
            raise UserError(
                f"{file}: the header is {','.join(table.columns)}, that of {files[0]} is {','.join(columns)}"
            )
        mine = table.iloc[:, 0]
        if mine.duplicated().any():
            raise UserError(
                f"{file}: the id {mine[mine.duplicated()].iloc[0]!r} occurs more than once; every picture has one row"
            )
        _same_ids(file, mine.tolist(), files[0], ids)
    claimed = [dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True)) for table in tables.values()]
    names = sorted({name for votes in claimed for name in votes.values()})
    number = {name: position for position, name in enumerate(names)}
    votes = np.array([[number[mine[picture]] for picture in ids] for mine in claimed], np.int64).reshape(
        len(files), len(ids)
    )
    winners = mixing.majority(votes)
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


def _same_ids(file: str, mine: Sequence[str], first: str, wanted: Sequence[str]) -> None:
    extra, missing = (
        sorted(set(mine) - set(wanted), key=submission.natural),
        sorted(set(wanted) - set(mine), key=submission.natural),
    )
    if extra or missing:
        parts = [f"{len(extra):,} not in {first} (first {extra[0]!r})"] if extra else []
        parts += [f"{len(missing):,} missing (first {missing[0]!r})"] if missing else []
        raise UserError(
            f"{file}: other ids than {first}: {'; '.join(parts)}; vote over submissions for the same pictures"
        )

"""The prepared set that a run was trained on, even if both were moved to another folder."""

from __future__ import annotations

from collections.abc import Iterator

from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.utils import storage

MAX_LEVELS = 4  # parents of a run folder in which its prepared set is looked for: runs/c/trials/a, data/prepared


def prepared_set_of(run: Run) -> Prepared:
    """The prepared set that the run was trained on. Raises UserError if it cannot be opened or has changed since."""
    environment = run.environment()
    if not environment.prepared:
        raise UserError(f"{run.root}: environment.json names no prepared set; name the images to evaluate with --data")
    prepared = open_prepared(prepared_root(run))
    if prepared.fingerprint != environment.data_fingerprint:
        raise UserError(
            f"{prepared.root}: changed since the training of {run.root}; train again, or evaluate on it with --data"
        )
    return prepared


def prepared_root(run: Run) -> str:
    """The folder of the run's prepared set: the one that environment.json names, or, if that does not exist, a set
    of the same name and content beside the run folder or a parent of it. Raises UserError for the
    address of a web server."""
    environment = run.environment()
    recorded = environment.prepared
    if recorded.startswith(
        ("http:", "https:")
    ):  # a run folder of someone else must not make this machine call a server
        raise UserError(f"{run.root}: environment.json names {recorded} as its prepared set; name the set with --data")
    if not recorded or is_prepared(recorded):
        return recorded
    for root in _beside(run.root, recorded):
        if is_prepared(root) and open_prepared(root).fingerprint == environment.data_fingerprint:
            return root
    return recorded


def _beside(run_root: str, recorded: str) -> Iterator[str]:
    """Folders where a prepared set is after it was moved together with the run."""
    name, folder = recorded.rstrip("/").rsplit("/", 1)[-1], run_root
    for _ in range(MAX_LEVELS):
        parent = folder.rpartition("/")[0]
        if not parent or parent.endswith(":/"):  # of a local path, of a bucket
            return
        folder = parent
        yield storage.join(folder, "prepared", name)
        yield storage.join(folder, name)

"""The file of a run with its score of "none of these": arrays only, in NumPy's .npz format without pickle."""

from __future__ import annotations

import io

import numpy as np

from animalclf.errors import UserError
from animalclf.features.known import FeatureDistances, Gaussian, KnownScorer
from animalclf.runs import Run
from animalclf.utils import storage
from animalclf.utils.arrays import READ_ERRORS
from animalclf.utils.console import show_line
from animalclf.utils.text import reason

FORMAT = 1


def write_scorer(run: Run, scorer: KnownScorer) -> None:
    storage.write_bytes(run.known_scores, to_bytes(scorer))


def read_scorer(run: Run) -> KnownScorer | None:
    """The scorer of a run; None if it has none. Raises UserError for a damaged file."""
    try:
        return from_bytes(storage.read_own(run.known_scores))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(
            f"{run.known_scores}: not readable ({error}); remove the file, and it is computed again, or, of a run with "
            "folds, train again"
        ) from error


def scorer_or_line(run: Run) -> KnownScorer | None:
    """As `read_scorer`; None, with a line that names the file, for a damaged one."""
    try:
        return read_scorer(run)
    except UserError as error:
        show_line(f"without the score of none of these: {error}")
        return None


def to_bytes(scorer: KnownScorer) -> bytes:
    """The content of a .npz file."""
    sink, arrays = io.BytesIO(), {"format": FORMAT, "spread": scorer.spread, "threshold": scorer.threshold}
    for name, gaussian in (("classes", scorer.distances.classes), ("everything", scorer.distances.everything)):
        arrays |= {f"{name}_{key}": value for key, value in vars(gaussian).items()}
    np.savez(sink, validation=scorer.validation, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def from_bytes(content: bytes) -> KnownScorer:
    """The scorer of such a file. Raises ValueError for any other content."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if int(arrays["format"]) != FORMAT:
                raise ValueError(f"its format is {arrays['format']}, not {FORMAT}")
            gaussians = [
                Gaussian(*(arrays[f"{name}_{key}"] for key in ("centres", "directions", "variance")))
                for name in ("classes", "everything")
            ]
            return KnownScorer(
                FeatureDistances(*gaussians), arrays["spread"], float(arrays["threshold"]), arrays["validation"]
            )
    except READ_ERRORS as error:
        raise ValueError(reason(error)) from error

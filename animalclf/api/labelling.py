"""What is done with labels after a training: find wrong ones, and choose what to label next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from animalclf.api.calls import PathLike, path_text, public

if TYPE_CHECKING:
    from animalclf.rows import LabelsResult, SuggestResult


@public
def labels(run: PathLike, *, out: PathLike | None = None, count: int = 0) -> LabelsResult:
    """List the images of the finished run folder `run` whose labels are probably wrong: labels.csv, in which a person
    decides (keep, relabel, drop) and which `train` and `prepare` take as `corrections`, and labels.html to look at.

    Every image is judged by a model that has not seen it: by the folds of a run with `folds`; of a run with a frozen
    base by heads that are fitted in folds now. `out`: the folder (default: RUN/labels). `count`: the number of images
    listed (0: one and a half times the estimated number of wrong labels, at least 20), of those
    of which another class is more probable than their label.
    """
    from animalclf.labelling.labels import labels as list_labels

    return list_labels(str(run), path_text(out), count)


@public
def suggest(run: PathLike, data: PathLike, *, count: int = 50, out: PathLike | None = None) -> SuggestResult:
    """Choose the `count` unlabelled images of the folder `data` whose labels help the model of the run folder `run`
    most: suggest.csv, in which a person writes the labels and which `train` and `prepare` take as `data`, and
    suggest.html to look at.

    The images that the model is unsure of, and that stand for many others, come first. Near-duplicates, of labelled
    images too, are suggested once. The table also has the labelled images of the run. `out`: the folder (default:
    RUN/suggest).
    """
    from animalclf.labelling.suggest import suggest as choose_images

    return choose_images(str(run), str(data), path_text(out), count)

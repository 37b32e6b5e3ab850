"""`suggest`: which unlabelled images to label next, as a table that a person fills in and a page to look at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf.config import Config, Data
from animalclf.data.prepared_set import Prepared, is_prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.features.known import KnownScorer
from animalclf.features.known_file import read_scorer
from animalclf.inference.features import ImageFeatures, image_features
from animalclf.labelling.features import labelled_features
from animalclf.labelling.new_images import comparable, is_new, read_comparable
from animalclf.labelling.selection import nearest, select, uncertainty
from animalclf.prepare.sources.table_file import read_table
from animalclf.report.gallery import GalleryImage, GallerySection, gallery_page
from animalclf.report.thumbnails import iter_images, thumbnail
from animalclf.rows import SuggestResult, Unreadable
from animalclf.runs import Run, open_run
from animalclf.utils import storage
from animalclf.utils.text import count_text, percent
from animalclf.utils.writable import check_writable

TABLE, PAGE = "suggest.csv", "suggest.html"
NEIGHBOURS = 20  # labelled images that a candidate is compared with
ROUNDS = 4  # of candidates, until enough of them are new
MAX_IMAGES = 500  # on the page
SHOWN_CLASSES = 2  # probabilities of a reason


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled images of a run: manifest rows int64 (L,) and features float32 (L, F)."""

    prepared: Prepared
    rows: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """What to label: rows of the pool int64 (K,), their gains float (K,), and the number of near-duplicates that were
    left out."""

    rows: np.ndarray
    gains: np.ndarray
    duplicates: int


def suggest(run: str, data: str, out: str | None = None, count: int = 50) -> SuggestResult:
    """List the `count` of the unlabelled images `data` whose labels help the model of the run most, in `out` (default:
    RUN/suggest): suggest.csv and suggest.html.

    Raises UserError for a folder without images, or whose images are all unreadable or near-duplicates of labelled
    ones; for a prepared set of the run that is gone; and for a suggest.csv there with labels that would be lost.
    """
    started = time.perf_counter()
    folder = open_run(run)
    target = storage.absolute(out) if out else folder.url("suggest")
    check_writable(target)
    _check_no_labels(storage.join(target, TABLE))
    if is_prepared(data):
        raise UserError(f"{data}: is a prepared set of labelled images; name a folder of unlabelled ones")
    prepared = prepared_set_of(folder)
    pool = image_features(folder.root, data)
    if not pool.paths:
        raise UserError(f"{data}: none of its {count_text(len(pool.unreadable or {}), 'image')} is readable")
    labelled = Labelled(prepared, *labelled_features(folder, prepared))
    config = folder.config()
    choice = choose(pool, labelled, config, count)
    if not len(choice.rows):
        raise UserError(f"{data}: all images are near-duplicates of labelled ones; name a folder of others")
    table = suggest_table(pool, choice, read_scorer(folder))
    known = labelled_table(folder, labelled, pool.root)
    result = SuggestResult(
        run=folder.root,
        data=pool.root,
        images=len(pool.paths),
        unreadable=[Unreadable(path=path, reason=reason) for path, reason in (pool.unreadable or {}).items()],
        duplicates=choice.duplicates,
        suggested=table["path"].tolist(),
        labelled=len(known),
        unknown=int((table["known"] == "no").sum()) if "known" in table else None,
        table=storage.join(target, TABLE),
        page=storage.join(target, PAGE),
        seconds=time.perf_counter() - started,
    )
    # With a byte-order mark, by which spreadsheets recognise UTF-8.
    content = pd.concat([table, known], ignore_index=True).to_csv(index=False).encode("utf-8-sig")
    storage.write_bytes(result.table, content)
    storage.write_bytes(result.page, _page(result, pool, choice, table, config))
    return result


def choose(pool: ImageFeatures, labelled: Labelled, config: Config, count: int) -> Choice:
    """The `count` most useful images of the pool, near-duplicates once, the most useful first."""
    weights, rest = uncertainty(pool.probabilities), np.arange(len(pool.paths))
    rows: list[int] = []
    gains: list[float] = []
    duplicates = 0
    for _ in range(ROUNDS):
        missing = count - len(rows)
        if not missing or not len(rest):
            break
        covered = np.concatenate([labelled.features, pool.features[rows]])
        selection = select(pool.features[rest], weights[rest], covered, 2 * missing)
        candidates = rest[selection.order]
        new = _are_new(pool, candidates, rows, labelled, config)
        last = np.flatnonzero(new)[:missing].max(initial=-1) if new.sum() >= missing else len(new) - 1
        duplicates += int((~new[: last + 1]).sum())
        rows += candidates[: last + 1][new[: last + 1]].tolist()
        gains += selection.gain[: last + 1][new[: last + 1]].tolist()
        rest = np.setdiff1d(rest, candidates)
    return Choice(np.array(rows, np.int64), np.array(gains), duplicates)


def _are_new(
    pool: ImageFeatures, candidates: np.ndarray, earlier: Sequence[int], labelled: Labelled, config: Config
) -> np.ndarray:
    near = labelled.rows[nearest(pool.features[candidates], labelled.features, NEIGHBOURS)]
    paths = labelled.prepared.manifest["path"].iloc[near]
    known = [comparable(image) for _, image in iter_images(labelled.prepared, paths)]
    images = [read_comparable(pool.root, pool.paths[row], config) for row in [*earlier, *candidates.tolist()]]
    return is_new(images[len(earlier) :], [*known, *images[: len(earlier)]])


def suggest_table(pool: ImageFeatures, choice: Choice, scorer: KnownScorer | None = None) -> pd.DataFrame:
    """The suggested images: path (absolute), label (empty), split (empty), predicted, probability, score (the fraction
    of the pool's uncertainty that it covers), reason, and with a `scorer` known: no for an image that perhaps shows
    none of the classes."""
    probabilities = pool.probabilities[choice.rows]
    best = probabilities.argmax(1)
    table = pd.DataFrame(
        {
            "path": [storage.join(pool.root, pool.paths[row]) for row in choice.rows],
            "label": "",
            "split": "",
            "predicted": np.array(pool.classes, object)[best],
            "probability": probabilities.max(1).astype(np.float64).round(4),
            "score": choice.gains.round(5),
            "reason": [_reason(row, pool.classes) for row in probabilities],
        }
    )
    if scorer is None:
        return table
    is_known = scorer.score(pool.features[choice.rows], probabilities) >= 0
    table.loc[~is_known, "reason"] += "; perhaps none of the classes"
    return table.assign(known=np.where(is_known, "yes", "no"))


def _reason(probabilities: np.ndarray, classes: Sequence[str]) -> str:
    """`unsure: cat 48 %, dog 41 %`, or `unlike the labelled images` of an image that the model is sure of."""
    first = np.argsort(-probabilities, kind="stable")[:SHOWN_CLASSES]
    text = ", ".join(f"{classes[number]} {percent(probabilities[number], 0)}" for number in first)
    return f"{'unsure' if probabilities[first[0]] < 0.9 else 'stands for others'}: {text}"


def labelled_table(run: Run, labelled: Labelled, pool_root: str) -> pd.DataFrame:
    """The labelled images of the run, so that the filled table is the larger training set: path (absolute), label,
    split. Empty if the folder that they were prepared from is gone, or if only one of it and `pool_root` is in a
    bucket: a table has images of one kind."""
    root = str(labelled.prepared.info.get("source", ""))
    images = labelled.prepared.manifest.iloc[np.sort(labelled.rows)]
    if storage.is_remote(root) != storage.is_remote(pool_root) or not storage.exists(root):
        images = images[:0]
    split = images["split"].where(images["split"] == "test", "") if run.config().train.folds else images["split"]
    return pd.DataFrame(
        {"path": [storage.join(root, path) for path in images["path"]], "label": images["label"], "split": split}
    )


def _check_no_labels(url: str) -> None:
    """Raise UserError if the file `url` has labels of suggested images."""
    if not storage.exists(url):
        return
    table = read_table(url, Data()).astype("string").fillna("")
    if {"label", "score"} <= set(table.columns):
        filled = int(((table["label"].str.strip() != "") & (table["score"] != "")).sum())
        if filled:
            raise UserError(
                f"{url}: has {count_text(filled, 'label')} that a new list would replace; train with it first, or "
                "write the list elsewhere with --out"
            )


def _page(result: SuggestResult, pool: ImageFeatures, choice: Choice, table: pd.DataFrame, config: Config) -> bytes:
    thumbnails = {
        storage.join(pool.root, pool.paths[row]): thumbnail(read_comparable(pool.root, pool.paths[row], config))
        for row in choice.rows[:MAX_IMAGES].tolist()
    }
    more = f" The first {MAX_IMAGES} of {len(table):,}." if len(table) > MAX_IMAGES else ""
    images = [
        GalleryImage(row["path"], f"{number}. {row['predicted']}", row["reason"])
        for number, row in enumerate(table.head(MAX_IMAGES).to_dict("records"), start=1)
    ]
    section = GallerySection(
        "Images to label", f"The most useful first, in the order of {TABLE}, with the predicted class.{more}", images
    )
    answer = (
        f"{len(table):,} of {count_text(result.images, 'image')} of {result.data} to label next. "
        f"Write their classes into {TABLE}."
    )
    return gallery_page(f"What to label next for {result.run}", answer, [section], thumbnails)

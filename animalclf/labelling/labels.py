"""`labels`: a run's images with probably wrong labels, as a table that a person fills in and a page to look at."""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from animalclf.data.prepared_set import Decision, Prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.labelling.confident import likely_wrong, margins, wrong_labels
from animalclf.labelling.out_of_fold import OutOfFold, out_of_fold
from animalclf.prepare.sources.corrections import COLUMNS, filled_decisions
from animalclf.report.gallery import GalleryImage, GallerySection, gallery_page
from animalclf.report.thumbnails import thumbnails
from animalclf.rows import LabelsResult
from animalclf.runs import Run, open_run
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.text import count_clause, count_text, percent
from animalclf.utils.writable import check_writable

TABLE, PAGE = "labels.csv", "labels.html"
MAX_IMAGES = 500  # in a section of the page
MAX_LISTED = 10  # in the terminal


def labels(run: str, out: str | None = None, count: int = 0) -> LabelsResult:
    """List the images of a finished run whose labels are probably wrong in `out` (default: RUN/labels): labels.csv and
    labels.html. `count`: their number; 0: see `likely_wrong`. Near-duplicates with different labels come after them,
    and last the decisions that the run's own images were corrected by.

    Raises UserError as `out_of_fold`, and for a labels.csv there with decisions that would be lost.
    """
    started = time.perf_counter()
    folder = open_run(run)
    target = storage.absolute(out) if out else folder.url("labels")
    check_writable(target)
    prepared, missing = _prepared(folder)
    record = prepared.info.get("corrections") if prepared else None
    decided = record["decisions"] if record else []
    _check_no_decisions(storage.join(target, TABLE), decided)
    images = out_of_fold(folder)
    if missing:
        show_line(f"without thumbnails: {missing}")
    likely = likely_wrong(images.probabilities, images.labels, count)
    contradictory = contradictory_images(images)
    table = labels_table(images, likely, contradictory, decided)
    listed = table[table["decision"] == ""]
    result = LabelsResult(
        run=folder.root,
        images=len(images.paths),
        origin=images.origin,
        estimated=wrong_labels(images.probabilities, images.labels),
        likely_wrong=len(likely),
        contradictory=len(np.unique(images.groups[contradictory])),
        listed=len(listed),
        decided=len(decided),
        table=storage.join(target, TABLE),
        page=storage.join(target, PAGE),
        seconds=time.perf_counter() - started,
    )
    # With a byte-order mark, by which spreadsheets recognise UTF-8.
    storage.write_bytes(result.table, table.to_csv(index=False).encode("utf-8-sig"))
    storage.write_bytes(result.page, _page(result, images, listed, contradictory, prepared))
    return result


def labels_table(
    images: OutOfFold, likely: np.ndarray, contradictory: np.ndarray, decided: Sequence[Decision] = ()
) -> pd.DataFrame:
    """labels.csv: path, label, suggested, decision (empty, but for `decided`), score (the probability of the label
    minus that of the suggestion), probability (of the suggestion), label_probability, reason. `likely`,
    `contradictory`: positions of images int64, in the order to list them; images that are `decided` come last."""
    margin, other = margins(images.probabilities, images.labels)
    rows = np.concatenate([likely, contradictory[~np.isin(contradictory, likely)]])
    names, predicted = np.array(images.classes, object), margin < 0
    reasons: dict[int, list[str]] = defaultdict(list)
    for row in np.flatnonzero(predicted).tolist():
        reasons[row].append(f"predicted as {names[other[row]]}")
    for row, text in _duplicate_reasons(images, contradictory):
        reasons[row].append(text)
    label_probability = images.probabilities[np.arange(len(margin)), images.labels]
    table = pd.DataFrame(
        {
            "path": np.array(images.paths, object)[rows],
            "label": names[images.labels[rows]],
            "suggested": np.where(predicted[rows], names[other[rows]], ""),
            "decision": "",
            "score": margin[rows].round(4),
            "probability": (label_probability - margin)[rows].round(4),
            "label_probability": label_probability[rows].round(4),
            "reason": ["; ".join(reasons[row]) for row in rows.tolist()],
        }
    ).astype(dict.fromkeys([*COLUMNS, "reason"], object))  # without rows, pandas takes text for numbers
    earlier = pd.DataFrame([dict(decision) for decision in decided], columns=[*COLUMNS]).assign(
        score=np.nan, probability=np.nan, label_probability=np.nan, reason="decided before"
    )
    return pd.concat([table[~table["path"].isin(earlier["path"])], earlier.astype(table.dtypes)], ignore_index=True)


def contradictory_images(images: OutOfFold) -> np.ndarray:
    """The images of groups of near-duplicates with more than one label, int64 (M,), group by group."""
    pairs = pd.DataFrame({"group": images.groups, "label": images.labels})
    different = (pairs.groupby("group")["label"].transform("nunique") > 1).to_numpy()
    rows = np.flatnonzero(different)
    return rows[np.argsort(images.groups[rows], kind="stable")]


def _duplicate_reasons(images: OutOfFold, contradictory: np.ndarray) -> Iterator[tuple[int, str]]:
    """Each image of `contradictory`, and a near-duplicate of it with another label."""
    for row in contradictory.tolist():
        group = contradictory[images.groups[contradictory] == images.groups[row]]
        other = int(group[images.labels[group] != images.labels[row]][0])
        label = images.classes[images.labels[other]]
        yield row, f"near-duplicate of {images.paths[other]}, which has the label {label}"


def _prepared(run: Run) -> tuple[Prepared | None, str]:
    """The run's prepared set, or None and why it cannot be opened."""
    try:
        return prepared_set_of(run), ""
    except UserError as error:
        return None, str(error)


def _check_no_decisions(url: str, decided: Sequence[Decision]) -> None:
    """Raise UserError if the file `url` has decisions that are not among `decided`."""
    if not storage.exists(url):
        return
    own = {(row["path"], row["suggested"], row["decision"]) for row in decided}
    filled = [row for row in filled_decisions(url) if (row["path"], row["suggested"], row["decision"]) not in own]
    if filled:
        raise UserError(
            f"{url}: has {count_text(len(filled), 'decision')} that a new list would replace; apply them with "
            "--corrections, or write the list elsewhere with --out"
        )


def _page(
    result: LabelsResult, images: OutOfFold, listed: pd.DataFrame, contradictory: np.ndarray, prepared: Prepared | None
) -> bytes:
    likely = listed[listed["suggested"] != ""].head(MAX_IMAGES)
    sections = [
        GallerySection(
            "Likely wrong labels",
            "The worst first: the predicted class with its probability, then the label with its own. Look at an "
            f"image before you change its label.{_cut_text(len(listed[listed['suggested'] != '']))}",
            [
                GalleryImage(
                    row["path"],
                    row["suggested"],
                    f"{percent(row['probability'], 0)}, label {row['label']} {percent(row['label_probability'], 0)}",
                )
                for row in likely.to_dict("records")
            ],
        ),
        GallerySection(
            "Near-duplicates with different labels",
            f"Images of one group stand together, with their labels.{_cut_text(len(contradictory))}",
            [
                GalleryImage(images.paths[row], images.classes[images.labels[row]], f"group {images.groups[row]}")
                for row in contradictory[:MAX_IMAGES].tolist()
            ],
        ),
    ]
    paths = [image.path for section in sections for image in section.images]
    answer = (
        f"{result.estimated:,} of {count_text(result.images, 'label')} estimated to be wrong; "
        f"{count_clause(result.listed, 'image', 'are listed')}. "
        f"Write keep, relabel or drop into the column decision of {TABLE}."
    )
    return gallery_page(f"Labels of {result.run}", answer, sections, thumbnails(prepared, paths) if prepared else {})


def _cut_text(total: int) -> str:
    return f" The first {MAX_IMAGES} of {total:,}." if total > MAX_IMAGES else ""


def worst_table(result: LabelsResult) -> Table:
    """The first lines of labels.csv, for a terminal."""
    content = io.BytesIO(storage.read_bytes(result.table))
    rows = pd.read_csv(content, dtype=str, keep_default_na=False).head(min(MAX_LISTED, result.listed))
    shown = f"the first {len(rows)} of {count_text(result.listed, 'line')} of " if len(rows) < result.listed else ""
    table = Table(title=Text(shown + result.table, overflow="fold"), title_justify="left")
    table.caption = Text("score: the probability of the label minus that of the suggestion; the lowest first")
    table.caption_justify = "left"
    columns = {"image": "path", "label": "label", "suggested": "suggested", "score": "score"}
    for heading in columns:
        table.add_column(heading, overflow="fold", justify="right" if heading == "score" else "left")
    for row in rows[list(columns.values())].to_numpy().tolist():
        table.add_row(*map(Text, row[:-1]), f"{float(row[-1]):.4f}")
    return table

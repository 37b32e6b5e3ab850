"""The plots of the report, as matplotlib figures: for the page (SVG, text in the page's colour) and as PNG files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from animalclf.metrics import METRICS, PRIMARY
from animalclf.rows import CalibrationBin, EpochRow, Evaluation, LeaderboardRow

P = ParamSpec("P")

# Okabe and Ito 2008: distinguishable with any kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
INK = "#767676"  # grey that is legible on white and on black
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
MANY_LOSSES = 50  # in which an outlier is one
JOINED_BINS = 10  # images, up to which bins of the reliability diagram are joined
UNMARKED_EPOCHS = 30  # from this many epochs on, a curve has no mark at each epoch


def leaderboard(rows: Sequence[LeaderboardRow]) -> Figure:
    """Balanced accuracy of each row with its 95 % interval, the best on top; a small mark for each seed."""
    both_kinds = {row.kind for row in rows} == {"model", "ensemble"}
    height = 0.7 + 0.42 * len(rows) + 0.25 * both_kinds
    figure = Figure(figsize=(6, height), layout="constrained")  # legible on a phone
    axes = figure.subplots()
    for y, row in enumerate(rows):
        score, colour = row[PRIMARY], COLOURS[0] if row.kind == "model" else COLOURS[1]
        axes.plot([score.low, score.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(score.values, [y] * len(score.values), "|", color=colour, markersize=9)
        axes.plot(score.mean, y, "o", color=colour, markersize=7)
    if both_kinds:
        names = zip(COLOURS, ("recipe", "ensemble"), strict=False)
        handles = [Line2D([], [], color=colour, marker="o", label=name) for colour, name in names]
        _add_legend(figure, 2, handles=handles, loc="outside upper right")
    axes.set_yticks(range(len(rows)), [_shorten(row.recipe) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{METRICS.get(PRIMARY).title} on validation, 95 % interval")
    axes.grid(axis="y", visible=False)
    return figure


def learning_curves(
    histories: Sequence[tuple[str, Sequence[EpochRow]]], reference: Mapping[str, Sequence[EpochRow]]
) -> Figure:
    """Accuracy and loss by epoch of each run (recipe, history): validation solid, training dashed, and as crosses the
    validation of the `reference` results, by recipe, at epochs that its runs have reached."""
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1)
    recipes = list(dict.fromkeys(recipe for recipe, _ in histories))
    colours = {recipe: COLOURS[number % len(COLOURS)] for number, recipe in enumerate(recipes)}
    last_epoch = {
        recipe: max(row.epoch for name, history in histories if name == recipe for row in history) for recipe in recipes
    }
    crosses = {
        recipe: [row for row in reference.get(recipe, ()) if row.epoch <= last_epoch[recipe]] for recipe in recipes
    }
    for axes, name in ((above, "accuracy"), (below, "loss")):
        for recipe, history in histories:
            epochs, colour = [row.epoch for row in history], colours[recipe]
            training = [row.train_accuracy if name == "accuracy" else row.train_loss for row in history]
            axes.plot(epochs, training, "--", color=colour, linewidth=1, alpha=0.7)
            if name in history[-1].val:
                marker = "." if len(history) < UNMARKED_EPOCHS else ""
                axes.plot(epochs, [row.val[name] for row in history], color=colour, linewidth=1.6, marker=marker)
        for recipe, rows in crosses.items():
            values = [row.val[name] for row in rows]
            axes.plot([row.epoch for row in rows], values, "x", color=colours[recipe], markersize=7)
        axes.set_ylabel(name)
    below.set_ylim(*_loss_limits(histories))
    below.set_xlabel("epoch")
    handles = [Line2D([], [], color=colour, label=_shorten(recipe)) for recipe, colour in colours.items()]
    handles += [Line2D([], [], color=INK, label="validation"), Line2D([], [], color=INK, ls="--", label="training")]
    if any(crosses.values()):
        handles.append(Line2D([], [], color=INK, marker="x", ls="", label="reference notebook, validation"))
    _add_legend(figure, 3, handles=handles, loc="outside upper left")
    return figure


def _loss_limits(histories: Sequence[tuple[str, Sequence[EpochRow]]]) -> tuple[float | None, float | None]:
    """Limits of the loss axis that a single outlier among many epochs does not stretch."""
    rows = [row for _, history in histories for row in history]
    losses = [row.train_loss for row in rows] + [row.val["loss"] for row in rows if "loss" in row.val]
    top = np.quantile(losses, 0.98 if len(losses) >= MANY_LOSSES else 1) if losses else 0
    return 0, float(top) * 1.1 or None


def calibration(results: Sequence[tuple[str, Evaluation]]) -> Figure:
    """Accuracy against confidence of each model (label, metrics): on the diagonal they are equal. Area: images.
    Neighbouring bins of few images are joined (`joined_bins`): the accuracy of a few is 0 or 1 by chance."""
    figure = Figure(figsize=(5, 4.6 + 0.12 * len(results)), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
    for number, (label, evaluation) in enumerate(results):
        bins, colour = joined_bins(evaluation.calibration), COLOURS[number % len(COLOURS)]
        confidence, accuracy = [row.confidence for row in bins], [row.accuracy for row in bins]
        areas = [200 * (row.images / evaluation.rows) + 8 for row in bins]
        legend = f"{_shorten(label)} ({evaluation['ece']:.3f})"
        axes.plot(confidence, accuracy, color=colour, linewidth=1, alpha=0.7)
        axes.scatter(confidence, accuracy, s=areas, color=colour, label=legend, clip_on=False)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    _add_legend(figure, 2, title="calibration error", loc="outside lower center")
    return figure


def joined_bins(bins: Iterable[CalibrationBin]) -> list[CalibrationBin]:
    """`bins`, in the order of their confidence: neighbours with fewer than JOINED_BINS images are joined until they
    have as many. One beside larger ones stays: joined, it would vanish in them."""
    joined: list[CalibrationBin] = []
    for row in bins:
        if joined and max(joined[-1].images, row.images) < JOINED_BINS:
            row = _union(joined.pop(), row)
        joined.append(row)
    return joined


def _union(first: CalibrationBin, second: CalibrationBin) -> CalibrationBin:
    images = first.images + second.images
    return CalibrationBin(
        images=images,
        confidence=(first.images * first.confidence + second.images * second.confidence) / images,
        accuracy=(first.images * first.accuracy + second.images * second.accuracy) / images,
    )


def _add_legend(figure: Figure, columns: int, **options: Any) -> None:
    """Add a legend of `columns` columns, or of as many as the figure is wide enough for."""
    for count in range(columns, 0, -1):
        legend = figure.legend(ncols=count, fontsize=8, **options)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def known_scores(scores: np.ndarray) -> Figure:
    """Histogram of the scores of "none of these" float (N,) of validation images; the line at 0 is the threshold."""
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    shown = np.clip(scores, np.quantile(scores, 0.005) - 1, None)  # a single outlier does not stretch the axis
    low, high = min(shown.min(), 0), max(shown.max(), 0)
    width = (high - low) / min(40, max(5, len(scores) // 5)) or 1
    edges = width * np.arange(np.floor(low / width), np.floor(high / width) + 2)  # no bar on both sides of the line
    axes.hist(shown, bins=edges.tolist(), color=COLOURS[0])
    axes.axvline(0, color=COLOURS[5], linewidth=1.5)
    axes.set_xlabel("score; below 0: none of these")
    axes.set_ylabel("validation images")
    return figure


def confusion(label: str, classes: Sequence[str], counts: np.ndarray, support: np.ndarray) -> Figure:
    """A confusion matrix. `counts`: int64 (C, C), rows = true class, columns = predicted class; the shade is the
    fraction of the row's `support`, int64 (C,)."""
    side = 2.2 + 0.36 * len(classes)
    figure = Figure(figsize=(side, side * 0.94), layout="constrained")
    axes = figure.subplots()
    fractions = counts / np.maximum(support, 1)[:, None]
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        colour = "white" if fractions[row, column] > 0.5 else "#333"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    names = [_shorten(name, 20) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(_shorten(label), fontsize=10)
    axes.grid(visible=False)
    return figure


def draw(plot: Callable[P, Figure], *args: P.args, **kwargs: P.kwargs) -> Figure:
    """The figure that `plot` returns, in the report's style. A $ in a class name starts no formula."""
    with matplotlib.rc_context({**STYLE, "text.parse_math": False}):
        return plot(*args, **kwargs)


def svg(figure: Figure, salt: str) -> str:
    """The figure for the page: scalable, text in the page's own colour and font. `salt` is unique on the page, and so
    are the ids of the SVG's elements."""
    sink = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        _save(figure, sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # matplotlib's ids of groups are the same in every plot
    for size in ("height", "width"):  # the page's style decides
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    return text


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, on white."""
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        _save(figure, sink, format="png", dpi=150, facecolor="white")
    return sink.getvalue()


def _save(figure: Figure, sink: IO[Any], **settings: Any) -> None:
    with warnings.catch_warnings():
        # If no installed font has a script, the PNG has boxes; the page uses the browser's fonts.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(sink, **settings)


def _shorten(text: str, length: int = 34) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

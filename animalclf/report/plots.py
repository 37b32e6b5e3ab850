"""The plots of the report, as matplotlib figures: for the page (SVG, text in the page's colour) and as PNG files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.lines
import numpy as np
from matplotlib.figure import Figure

from animalclf.metrics import METRICS, PRIMARY
from animalclf.rows import EpochRow, Evaluation, LeaderboardRow

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


def leaderboard(rows: Sequence[LeaderboardRow]) -> Figure:
    """Balanced accuracy of each row with its 95 % interval, the best on top; a small mark for each seed."""
    figure = Figure(figsize=(7, 0.7 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        score, colour = row[PRIMARY], COLOURS[0] if row.kind == "model" else COLOURS[1]
        axes.plot([score.low, score.high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(score.values, [place] * len(score.values), "|", color=colour, markersize=9)
        axes.plot(score.mean, place, "o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [_short(row.recipe) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{METRICS.get(PRIMARY).title} on validation, 95 % interval")
    axes.grid(axis="y", visible=False)
    return figure


def learning_curves(
    histories: Sequence[tuple[str, str, Sequence[EpochRow]]],
    reference: Mapping[str, Sequence[tuple[int, float, float, float, float]]],
) -> Figure:
    """Loss and accuracy by epoch of every run (label, model, history): validation solid, training dashed, and as crosses the validation of
    `reference` results by model (epoch, train accuracy, validation accuracy, train loss, validation loss)."""
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1)
    labels = list(dict.fromkeys(label for label, *_ in histories))
    for label, model, history in histories:
        epochs, colour = [row.epoch for row in history], COLOURS[labels.index(label) % len(COLOURS)]
        dots = "." if len(history) < 30 else ""
        trained = ([row.train_accuracy for row in history], [row.train_loss for row in history])
        for axes, name, values in zip((above, below), ("accuracy", "loss"), trained, strict=True):
            axes.plot(epochs, values, "--", color=colour, linewidth=1, alpha=0.7)
            if name in history[-1].val:
                axes.plot(epochs, [row.val[name] for row in history], color=colour, linewidth=1.6, marker=dots)
        last = max(epochs)
        crosses = [row for row in reference.get(model, ()) if row[0] <= last * 1.5]
        for axes, column in ((above, 2), (below, 4)):
            axes.plot([row[0] for row in crosses], [row[column] for row in crosses], "x", color=colour, markersize=7)
    for axes, name in ((above, "accuracy"), (below, "loss")):
        axes.set_ylabel(name)
    rows = [row for *_, history in histories for row in history]
    losses = [row.train_loss for row in rows] + [row.val["loss"] for row in rows if "loss" in row.val]
    if losses:
        below.set_ylim(0, float(np.quantile(losses, 0.98)) * 1.1)  # one wild epoch must not flatten all others
    below.set_xlabel("epoch")
    lines = [
        matplotlib.lines.Line2D([], [], color=COLOURS[n % len(COLOURS)], label=_short(label))
        for n, label in enumerate(labels)
    ]
    marks: list[tuple[str, dict[str, str]]] = [("validation", {}), ("training", {"linestyle": "--"})]
    if any(reference.get(model) for _, model, _ in histories):
        marks.append(("reference notebook, validation", {"marker": "x", "linestyle": ""}))
    for text, how in marks:
        lines.append(matplotlib.lines.Line2D([], [], color=INK, label=text, **how))  # type: ignore[arg-type]
    figure.legend(handles=lines, loc="outside upper left", ncols=3, fontsize=8)
    return figure


def calibration(results: Sequence[tuple[str, Evaluation]]) -> Figure:
    """Accuracy against confidence of each model (label, metrics): on the diagonal they are equal. Area: images."""
    figure = Figure(figsize=(5, 4.6 + 0.12 * len(results)), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
    for number, (label, found) in enumerate(results):
        bins, colour = found.calibration, COLOURS[number % len(COLOURS)]
        x, y = [row.confidence for row in bins], [row.accuracy for row in bins]
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.7)
        axes.scatter(
            x,
            y,
            s=[200 * (row.images / found.rows) + 8 for row in bins],
            color=colour,
            label=f"{_short(label)} ({found['ece']:.3f})",
        )
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    figure.legend(title="calibration error", fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure


def confusion(label: str, found: Evaluation) -> Figure:
    """Rows: true class; columns: predicted; shade: fraction of the row."""
    classes, counts = found.classes, np.array(found.confusion)
    side = 2.2 + 0.36 * len(classes)
    figure = Figure(figsize=(side, side * 0.94), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 40:
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shares[row, column] > 0.5 else "#333",
            )
    names = [_short(name, 20) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(_short(label), fontsize=10)
    axes.grid(visible=False)
    return figure


def drawn(make: Any, *arguments: Any) -> Figure:
    """The figure `make(*arguments)` in the report's style. A $ in a user's name does not start a formula."""
    with matplotlib.rc_context({**STYLE, "text.parse_math": False}):
        figure: Figure = make(*arguments)
    return figure


def svg(figure: Figure, salt: str) -> str:
    """For the page: scalable, text in the page's own colour and font. `salt`: unique on the page, so that element ids are."""
    sink = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        _save(figure, sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    text = re.sub(
        r'<g id="[^"]*"', "<g", text[text.index("<svg") :].replace(INK, "currentColor")
    )  # group names, the same in every plot
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )


def png(figure: Figure) -> bytes:
    """For a file: on white."""
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        _save(figure, sink, format="png", dpi=150, facecolor="white")
    return sink.getvalue()


def _save(figure: Figure, sink: Any, **how: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph", UserWarning
        )  # no installed font has the script: the page shows it, the PNG boxes
        figure.savefig(sink, **how)


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

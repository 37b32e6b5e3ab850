"""A leaderboard as terminal tables, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from animalclf.report.leaderboard import FIGURES
from animalclf.utils import storage
from animalclf.utils.console import duration


def table(board: dict[str, Any]) -> Table:
    """The rows of a leaderboard for 100 columns: mean and standard deviation over seeds, below them the 95 %
    interval."""
    title = f"leaderboard on {board['pictures']:,} validation images"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)
    shown.caption = "mean ± standard deviation over seeds; below it the 95 % interval over seeds and images"
    shown.add_column("recipe", overflow="fold")
    titles = [
        "seeds",
        "balanced\naccuracy",
        "accu-\nracy",
        "macro\nF1",
        "loss",
        "calib.\nerror",
        "best\nepoch",
        "images\n/s",
    ]
    for name in (*titles, "time to\nbest", "para-\nmeters"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in board["rows"]:
        score = row["balanced_accuracy"]
        shown.add_row(
            Text(row["recipe"]),
            _seeds(row),
            f"{score['mean']:.3f}{_spread(score)}\n{_interval(score)}",
            *_metrics(row),
            _best_epoch(row),
            _speed(row),
            duration(row["seconds_to_best"]),
            f"{row['parameters'] / 1e6:.1f} M",
        )
    return shown


def pairs_table(board: dict[str, Any]) -> Table:
    """The pairwise differences in balanced accuracy and their significance, for 100 columns."""
    shown = Table(title="differences in balanced accuracy", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("better", overflow="fold")
    shown.add_column("than", overflow="fold")
    for name in ("by", "95 % interval", "p", "significant"):
        shown.add_column(name, justify="right", no_wrap=True)
    for pair in board["pairs"]:
        numbers = (f"{pair['difference']:.3f}", _interval(pair), _p(pair), _significant(pair))
        shown.add_row(Text(pair["a"]), Text(pair["b"]), *numbers)
    return shown


def to_json(board: dict[str, Any]) -> str:
    return json.dumps(board, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(board: dict[str, Any]) -> str:
    """One line a row; mean, std, low and high of a metric in columns of their own, empty for None."""
    lists, texts = (*FIGURES, "best_epoch"), ("recipe", "kind")
    plain = ("pictures_per_s", "seconds_to_best", "device_seconds_to_best", "parameters", "trainable")
    parts = ("mean", "std", "low", "high")
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*texts, "seeds", *(f"{name}_{part}" for name in lists for part in parts), *plain, "runs"])
    for row in board["rows"]:
        seeds, runs = " ".join(map(str, row["seeds"])), " ".join(row["runs"])
        metrics = [(row[name] or {}).get(part) for name in lists for part in parts]
        writer.writerow([*(row[name] for name in texts), seeds, *metrics, *(row[name] for name in plain), runs])
    return sink.getvalue()


def to_markdown(board: dict[str, Any]) -> str:
    """The rows as a table, and the pairwise differences as another."""
    titles = ["recipe", "seeds", "balanced accuracy (95 %)", "accuracy", "macro F1", "loss", "calibration error"]
    titles += ["best epoch", "images/s", "time to best", "parameters"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for row in board["rows"]:
        score = row["balanced_accuracy"]
        cells = [
            _cell(row["recipe"]),
            _seeds(row),
            f"**{score['mean']:.3f}**{_spread(score)} ({_interval(score)})",
            *_metrics(row),
        ]
        cells += [_best_epoch(row), _speed(row), duration(row["seconds_to_best"]), f"{row['parameters']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    if board["pairs"]:
        lines += ["", "| better | than | by (95 %) | p | significant |", "|---|---|---:|---:|---|"]
    for pair in board["pairs"]:
        by = f"{pair['difference']:.3f} ({_interval(pair)})"
        lines.append(f"| {_cell(pair['a'])} | {_cell(pair['b'])} | {by} | {_p(pair)} | {_significant(pair)} |")
    return "\n".join(lines) + "\n"


def write(board: dict[str, Any], out: str) -> dict[str, str]:
    """Write leaderboard.csv, .json and .md into the folder `out`; their URLs by kind."""
    urls = {}
    for kind, text in (("csv", to_csv(board)), ("json", to_json(board)), ("md", to_markdown(board))):
        urls[kind] = storage.join(storage.absolute(out), f"leaderboard.{kind}")
        storage.write_bytes(urls[kind], text.encode())
    return urls


def _seeds(row: dict[str, Any]) -> str:
    return str(len(row["seeds"]) or "-")


def _spread(score: dict[str, Any]) -> str:
    return "" if score["std"] is None else f" ± {score['std']:.3f}"


def _interval(values: dict[str, Any]) -> str:
    return f"{values['low']:.3f} to {values['high']:.3f}"


def _metrics(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]['mean']:.3f}" for name in FIGURES[1:]]


def _best_epoch(row: dict[str, Any]) -> str:
    return "-" if row["best_epoch"] is None else f"{row['best_epoch']['mean']:.0f}"


def _speed(row: dict[str, Any]) -> str:
    return "-" if row["pictures_per_s"] is None else f"{row['pictures_per_s']:,.0f}"


def _p(pair: dict[str, Any]) -> str:
    return f"{pair['p']:.3f}" if pair["p"] >= 0.001 else "< 0.001"


def _significant(pair: dict[str, Any]) -> str:
    return "yes" if pair["real"] else "no"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

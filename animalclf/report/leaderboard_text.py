"""A leaderboard as terminal tables, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from animalclf.utils import storage
from animalclf.utils.console import duration

FIGURES = ("balanced_accuracy", "accuracy", "macro_f1", "loss", "ece")


def table(board: dict[str, Any]) -> Table:
    """The rows of a leaderboard for 100 columns: mean and spread over seeds, below it the 95 % interval."""
    shown = Table(title=f"leaderboard on {board['pictures']:,} validation pictures", title_justify="left", box=box.SIMPLE, padding=0)
    shown.caption = "mean ± deviation over seeds; below it the 95 % interval over seeds and pictures, or pictures alone where there is one seed"
    shown.add_column("recipe", overflow="fold")
    titles = ["seeds", "balanced\naccuracy", "accu-\nracy", "macro\nF1", "loss", "calib.\nerror", "best\nepoch", "pic-\ntures/s"]
    for name in (*titles, "time to\nbest", "para-\nmeters"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in board["rows"]:
        score, epoch, speed = row["balanced_accuracy"], row["best_epoch"], row["pictures_per_s"]
        spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
        shown.add_row(
            Text(row["recipe"]),
            str(len(row["seeds"]) or "-"),
            f"{score['mean']:.3f}{spread}\n{score['low']:.3f} to {score['high']:.3f}",
            *(f"{row[name]['mean']:.3f}" for name in FIGURES[1:]),
            "-" if epoch is None else f"{epoch['mean']:.0f}",
            "-" if speed is None else f"{speed:,.0f}",
            duration(row["seconds_to_best"]),
            f"{row['parameters'] / 1e6:.1f} M",
        )
    return shown


def pairs_table(board: dict[str, Any]) -> Table:
    """Which differences in balanced accuracy are real, for 100 columns."""
    shown = Table(title="differences in balanced accuracy", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("better", overflow="fold")
    shown.add_column("than", overflow="fold")
    for name in ("by", "95 % interval", "p", "real"):
        shown.add_column(name, justify="right", no_wrap=True)
    for pair in board["pairs"]:
        figures = [f"{pair['difference']:.3f}", f"{pair['low']:.3f} to {pair['high']:.3f}", f"{pair['p']:.3f}" if pair["p"] >= 0.001 else "< 0.001"]
        shown.add_row(Text(pair["a"]), Text(pair["b"]), *figures, "yes" if pair["real"] else "no")
    return shown


def to_json(board: dict[str, Any]) -> str:
    return json.dumps(board, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(board: dict[str, Any]) -> str:
    """One line a row; a figure's mean, std, low and high in columns of their own, empty where there is none."""
    lists, texts = (*FIGURES, "best_epoch"), ("recipe", "kind")
    plain = ("pictures_per_s", "seconds_to_best", "device_seconds_to_best", "parameters", "trainable")
    parts = ("mean", "std", "low", "high")
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*texts, "seeds", *(f"{name}_{part}" for name in lists for part in parts), *plain, "runs"])
    for row in board["rows"]:
        figures = [(row[name] or {}).get(part) for name in lists for part in parts]
        writer.writerow(
            [*(row[name] for name in texts), " ".join(map(str, row["seeds"])), *figures, *(row[name] for name in plain), " ".join(row["runs"])]
        )
    return sink.getvalue()


def to_markdown(board: dict[str, Any]) -> str:
    """The rows as a table, and the differences as another."""
    titles = ["recipe", "seeds", "balanced accuracy (95 %)", "accuracy", "macro F1", "loss", "calibration error"]
    titles += ["best epoch", "pictures/s", "time to best", "parameters"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for row in board["rows"]:
        score, epoch, speed = row["balanced_accuracy"], row["best_epoch"], row["pictures_per_s"]
        spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
        cells = [
            _cell(row["recipe"]),
            str(len(row["seeds"]) or "-"),
            f"**{score['mean']:.3f}**{spread} ({score['low']:.3f} to {score['high']:.3f})",
            *(f"{row[name]['mean']:.3f}" for name in FIGURES[1:]),
            "-" if epoch is None else f"{epoch['mean']:.0f}",
            "-" if speed is None else f"{speed:,.0f}",
            duration(row["seconds_to_best"]),
            f"{row['parameters']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if board["pairs"]:
        lines += ["", "| better | than | by (95 %) | p | real |", "|---|---|---:|---:|---|"]
    for pair in board["pairs"]:
        by, p = f"{pair['difference']:.3f} ({pair['low']:.3f} to {pair['high']:.3f})", f"{pair['p']:.3f}" if pair["p"] >= 0.001 else "< 0.001"
        lines.append(f"| {_cell(pair['a'])} | {_cell(pair['b'])} | {by} | {p} | {'yes' if pair['real'] else 'no'} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write(board: dict[str, Any], out: str) -> dict[str, str]:
    """Write leaderboard.csv, .json and .md into the folder `out`; their URLs by kind."""
    made = {}
    for kind, text in (("csv", to_csv(board)), ("json", to_json(board)), ("md", to_markdown(board))):
        made[kind] = storage.join(storage.absolute(out), f"leaderboard.{kind}")
        storage.write_bytes(made[kind], text.encode())
    return made

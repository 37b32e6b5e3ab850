"""A leaderboard as terminal tables, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from animalclf.metrics import METRICS, PRIMARY, Metric, headline_metrics
from animalclf.metrics.text import p_value
from animalclf.rows import Leaderboard, LeaderboardPair, LeaderboardRow, Spread
from animalclf.utils import storage
from animalclf.utils.console import duration, short_duration
from animalclf.utils.text import count_text

MAX_METRICS = 6  # columns of the terminal's table
MARK = "*"  # of the costs of models on cached features


def table(board: Leaderboard) -> Table:
    """The rows of a leaderboard for 100 columns: mean and standard deviation over seeds, below them the 95 %
    interval. Metrics beyond the first MAX_METRICS are in the files and the report only."""
    title = f"leaderboard on {count_text(board.images, 'image')}"
    board_table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0, caption_justify="left")
    caption = ["mean ± standard deviation over seeds; below it the 95 % interval over seeds and images"]
    caption += [f"{measured}: {', '.join(recipes)}" for measured, recipes in _recipes_by_measurement(board).items()]
    caption += [f"{MARK} {note}"] if (note := _feature_note(board.rows)) else []
    board_table.caption = Text("\n".join(caption))
    board_table.add_column("recipe", overflow="fold")
    primary, others = METRICS.get(PRIMARY), _other_metrics()[: MAX_METRICS - 1]
    headings = [metric.heading or metric.title.replace(" ", "\n") for metric in (primary, *others)]
    for name in ("seeds", *headings, "best\nepoch", "images\n/s", "time to\nbest", "para-\nmeters"):
        board_table.add_column(name, justify="right", no_wrap=True)
    for row in board.rows:
        score = row[PRIMARY]
        board_table.add_row(
            Text(row.recipe),
            _seeds(row),
            f"{primary.short_text(score.mean)}{_spread(score)}\n{_interval(score)}",
            *(metric.short_text(row[metric.key].mean) for metric in others),
            _best_epoch(row),
            _speed(row) + _mark(row),
            duration(row.seconds_to_best) + _mark(row),
            f"{row.parameters / 1e6:.1f} M",
        )
    return board_table


def pairs_table(board: Leaderboard) -> Table:
    """The pairwise differences in balanced accuracy and their significance, for 100 columns."""
    title = f"differences in balanced accuracy on {count_text(board.images, 'image')}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("better", overflow="fold")
    table.add_column("than", overflow="fold")
    for name in ("by", "95 % interval", "p", "significant"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in board.pairs:
        numbers = (f"{pair.difference:z.3f}", _interval(pair), p_value(pair.p), _significance(pair))
        table.add_row(Text(pair.better), Text(pair.worse), *numbers)
    return table


def to_json(board: Leaderboard) -> str:
    return json.dumps(board.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(board: Leaderboard) -> str:
    """One line per row. Mean, std, low and high of each metric are separate columns, empty for None."""
    texts = ("recipe", "kind", "measured")
    numbers = (
        "images_per_s",
        "seconds_to_best",
        "features_seconds",
        "device_seconds_to_best",
        "parameters",
        "trainable",
    )
    spreads, parts = [*(metric.key for metric in headline_metrics()), "best_epoch"], ("mean", "std", "low", "high")
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*texts, "seeds", *(f"{name}_{part}" for name in spreads for part in parts), *numbers, "runs"])
    for row in (row.to_dict() for row in board.rows):
        seeds, runs = " ".join(map(str, row["seeds"])), " ".join(row["runs"])
        values = [(row[name] or {}).get(part) for name in spreads for part in parts]
        writer.writerow([*(row[name] for name in texts), seeds, *values, *(row.get(name) for name in numbers), runs])
    return sink.getvalue()


def to_markdown(board: Leaderboard) -> str:
    """The rows as a table, and the pairwise differences as another."""
    primary, others = METRICS.get(PRIMARY), _other_metrics()
    titles = ["recipe", "measured on", "seeds", f"{primary.title} (95 %)", *(metric.title for metric in others)]
    titles += ["best epoch", "images/s", "time to best", "parameters"]
    lines = [f"| {' | '.join(titles)} |", "|---|---|" + "---:|" * (len(titles) - 2)]
    for row in board.rows:
        score = row[PRIMARY]
        cells = [
            _cell(row.recipe),
            row.measured or "",
            _seeds(row),
            f"**{primary.short_text(score.mean)}**{_spread(score)} ({_interval(score)})",
        ]
        cells += [metric.short_text(row[metric.key].mean) for metric in others]
        mark = "\\" + MARK if _mark(row) else ""
        cells += [_best_epoch(row), _speed(row) + mark, duration(row.seconds_to_best) + mark, f"{row.parameters:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"\\{MARK} {note}"] if (note := _feature_note(board.rows)) else []
    if board.pairs:
        lines += ["", "| better | than | by (95 %) | p | significant |", "|---|---|---:|---:|---|"]
    for pair in board.pairs:
        by = f"{pair.difference:z.3f} ({_interval(pair)})"
        lines.append(
            f"| {_cell(pair.better)} | {_cell(pair.worse)} | {by} | {p_value(pair.p)} | {_significance(pair)} |"
        )
    return "\n".join(lines) + "\n"


def write(board: Leaderboard, out: str) -> dict[str, str]:
    """Write leaderboard.csv, .json and .md into the folder `out`; their URLs by kind."""
    urls = {}
    for kind, text in (("csv", to_csv(board)), ("json", to_json(board)), ("md", to_markdown(board))):
        urls[kind] = storage.join(storage.absolute(out), f"leaderboard.{kind}")
        storage.write_bytes(urls[kind], text.encode())
    return urls


def _feature_note(rows: Sequence[LeaderboardRow]) -> str:
    """What the marked costs mean; empty if all rows train on images."""
    seconds = {row.recipe: row.features_seconds for row in rows if row.features_seconds is not None}
    if not seconds:
        return ""
    models = {row.recipe for row in rows if row.kind == "model"} or seconds
    included = ", ".join(f"{short_duration(value)} of {name}" for name, value in seconds.items() if name in models)
    return (
        "on features of a frozen base, not comparable with other rows: images/s are the head's alone; the time "
        f"includes the features ({included}), which the first run that needs them computes"
    )


def _other_metrics() -> list[Metric]:
    """The headline metrics except the primary one."""
    return [metric for metric in headline_metrics() if metric.key != PRIMARY]


def _recipes_by_measurement(board: Leaderboard) -> dict[str, list[str]]:
    """The recipes by how they were measured."""
    recipes: dict[str, list[str]] = {}
    for row in board.rows:
        if row.measured:
            recipes.setdefault(row.measured, []).append(row.recipe)
    return recipes


def _seeds(row: LeaderboardRow) -> str:
    return str(len(row.seeds) or "-")


def _spread(score: Spread) -> str:
    return "" if score.std is None else f" ± {score.std:.3f}"


def _interval(values: Spread | LeaderboardPair) -> str:
    return f"{values.low:z.3f} to {values.high:z.3f}"


def _best_epoch(row: LeaderboardRow) -> str:
    return "-" if row.best_epoch is None else f"{row.best_epoch.mean:.0f}"


def _speed(row: LeaderboardRow) -> str:
    return "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}"


def _mark(row: LeaderboardRow) -> str:
    return "" if row.features_seconds is None else MARK


def _significance(pair: LeaderboardPair) -> str:
    return "yes" if pair.significant else "no"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

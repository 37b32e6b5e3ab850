"""The summary of a prepared set for a terminal of 80 columns: classes, splits, image sizes, duplicates, and files to
look at before training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from animalclf import config as configuration
from animalclf.data.prepared_set import Prepared
from animalclf.prepare.output_dir import OLD_SHEET, SHEET, file_names
from animalclf.prepare.problems import find_problems, problem_lines
from animalclf.prepare.sources.corrections import corrections_text
from animalclf.prepare.split import SPLITS
from animalclf.rows import DataProblems
from animalclf.utils import storage
from animalclf.utils.console import duration
from animalclf.utils.text import percent

MAX_NOTES = 8


def summary(prepared: Prepared, problems: DataProblems | None = None) -> RenderableType:
    """The tables of classes and facts, and the problems of the images (default: those that `find_problems` finds)."""
    problems = find_problems(prepared) if problems is None else problems
    ok = prepared.manifest[prepared.manifest["status"] == "ok"]
    return Group(_class_table(prepared), _facts(prepared, ok), *problem_lines(problems, prepared))


def _class_table(prepared: Prepared) -> Table:
    counts = prepared.info["counts"]
    splits = [name for name in SPLITS if any(counts[name].values())]
    table = Table(title=Text(f"prepared set {prepared.root}", overflow="fold"), title_justify="left", show_footer=True)
    table.add_column("class", footer="all", overflow="fold")
    for name in splits:
        table.add_column(name, footer=f"{sum(counts[name].values()):,}", justify="right")
    total = {label: sum(counts[name][label] for name in splits) for label in prepared.classes}
    table.add_column("fraction", footer=percent(1), justify="right")
    for label in prepared.classes:
        fraction = percent(total[label] / sum(total.values()))
        table.add_row(Text(label), *(f"{counts[name][label]:,}" for name in splits), fraction)
    return table


def _facts(prepared: Prepared, ok: pd.DataFrame) -> Table:
    info = prepared.info
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("images", f"{info['ok']:,} of {info['images']:,} files, stored at {info['stored_size']} px")
    total = [sum(info["counts"][name][label] for name in SPLITS) for label in prepared.classes]
    if max(total) > min(total):
        table.add_row(
            "imbalance", f"the largest class has {max(total) / min(total):.1f} times the images of the smallest"
        )
    area = ok["width"].astype(np.int64) * ok["height"]
    by_area = ok.iloc[np.argsort(area.to_numpy(), kind="stable")]
    sizes = [f"{row.width} x {row.height}" for row in by_area.iloc[[0, len(by_area) // 2, -1]].itertuples()]
    table.add_row("image sizes", f"smallest {sizes[0]}, median {sizes[1]}, largest {sizes[2]}")
    notes = ok.loc[ok["note"] != "", "note"].value_counts()
    if len(notes):
        table.add_row("notes", Text("; ".join(f"{note}: {count:,}" for note, count in notes[:MAX_NOTES].items())))
    table.add_row("duplicates", _duplicates_text(prepared))
    if record := info.get("corrections"):
        table.add_row("corrections", Text(corrections_text(record)))
    sheets = [name for name in (SHEET, OLD_SHEET) if name in file_names(prepared.root)]
    if sheets:
        table.add_row("examples", Text(storage.join(prepared.root, sheets[0])))
    table.add_row("time", duration(info["seconds"]))
    return table


def _duplicates_text(prepared: Prepared) -> str:
    counts = prepared.info["duplicates"]
    searched = configuration.data_from_dict(prepared.info["config"]).near_duplicates
    near = f"{counts['near']:,}" if searched else "not searched"
    if searched and not counts["groups"]:
        return "none"
    return f"identical: {counts['identical']:,}, near-duplicates: {near}, groups: {counts['groups']:,}"

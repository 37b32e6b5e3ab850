"""The summary of a prepared set for a terminal of 80 columns: classes, splits, image sizes, duplicates, and files to
look at before training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from animalclf import config as configuration
from animalclf.data.prepared_set import INFO, MANIFEST, Prepared
from animalclf.prepare.manifest import MAX_LISTED, contradictory_groups
from animalclf.prepare.output_dir import OLD_SHEET, SHEET, file_names
from animalclf.prepare.split import SPLITS, straddling
from animalclf.utils import storage
from animalclf.utils.console import duration

MAX_GROUP = 4  # images named of a group of duplicates
MAX_NOTES = 8


def summary(prepared: Prepared) -> RenderableType:
    """The tables of classes and facts, and the lists of unreadable files and of duplicates with a problem."""
    manifest, info = prepared.manifest, prepared.info
    ok = manifest[manifest["status"] == "ok"]
    unreadable = [f"{file['path']}: {file['reason']}" for file in info["bad"]]
    contradictory = [_group_line(rows, "label") for rows in contradictory_groups(manifest)]
    across = [_group_line(rows, "split") for _, rows in ok[ok["group"].isin(straddling(manifest))].groupby("group")]
    info_url, manifest_url = storage.join(prepared.root, INFO), storage.join(prepared.root, MANIFEST)
    return Group(
        _class_table(prepared),
        _facts(prepared, ok),
        *_warning(f"unreadable files, skipped: {len(unreadable):,}", unreadable, info_url),
        *_warning(
            f"duplicates with different labels: {_groups(contradictory)}; correct the labels",
            contradictory,
            manifest_url,
        ),
        *_warning(
            f"duplicates in different splits, as the data gives them: {_groups(across)}; scores may be too high",
            across,
            manifest_url,
        ),
    )


def _warning(title: str, lines: list[str], url: str) -> list[Text]:
    """The title and the first of the lines; where there are more, the file `url` that has them all. Nothing without
    lines."""
    if not lines:
        return []
    more = [f"and {len(lines) - MAX_LISTED:,} more, see {url}"] if len(lines) > MAX_LISTED else []
    title_text = Text(f"\n{title}", style="bold yellow")
    return [title_text, *(Text(f"  {line}", overflow="fold") for line in [*lines[:MAX_LISTED], *more])]


def _groups(lines: list[str]) -> str:
    return f"{len(lines):,} group{'' if len(lines) == 1 else 's'}"


def _group_line(rows: pd.DataFrame, column: str) -> str:
    """The images of one group with the value of `column`: a.jpg (cat) = b.jpg (dog)."""
    images = zip(rows["path"][:MAX_GROUP], rows[column][:MAX_GROUP], strict=True)
    line = " = ".join(f"{path} ({value})" for path, value in images)
    return line + (f" and {len(rows) - MAX_GROUP} more" if len(rows) > MAX_GROUP else "")


def _class_table(prepared: Prepared) -> Table:
    counts = prepared.info["counts"]
    splits = [name for name in SPLITS if any(counts[name].values())]
    table = Table(title=Text(f"prepared set {prepared.root}", overflow="fold"), title_justify="left", show_footer=True)
    table.add_column("class", footer="all", overflow="fold")
    for name in splits:
        table.add_column(name, footer=f"{sum(counts[name].values()):,}", justify="right")
    total = {label: sum(counts[name][label] for name in splits) for label in prepared.classes}
    table.add_column("fraction", footer="100.0%", justify="right")
    for label in prepared.classes:
        fraction = f"{total[label] / sum(total.values()):.1%}"
        table.add_row(Text(label), *(f"{counts[name][label]:,}" for name in splits), fraction)
    return table


def _facts(prepared: Prepared, ok: pd.DataFrame) -> Table:
    info = prepared.info
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("images", f"{info['ok']:,} of {info['images']:,} files, stored at {info['stored_size']} px")
    total = [sum(info["counts"][name][label] for name in SPLITS) for label in prepared.classes]
    table.add_row("imbalance", f"the largest class has {max(total) / min(total):.1f} times the images of the smallest")
    area = ok["width"].astype(np.int64) * ok["height"]
    by_area = ok.iloc[np.argsort(area.to_numpy(), kind="stable")]
    sizes = [f"{row.width} x {row.height}" for row in by_area.iloc[[0, len(by_area) // 2, -1]].itertuples()]
    table.add_row("image sizes", f"smallest {sizes[0]}, median {sizes[1]}, largest {sizes[2]}")
    if count := info["ignored"]["files"]:
        files = "1 file that is not an image:" if count == 1 else f"{count:,} files that are not images, such as"
        table.add_row("ignored", Text(f"{files} {info['ignored']['examples'][0]}"))
    notes = ok.loc[ok["note"] != "", "note"].value_counts()
    if len(notes):
        table.add_row("notes", Text("; ".join(f"{note}: {count:,}" for note, count in notes[:MAX_NOTES].items())))
    table.add_row("duplicates", _duplicates_text(prepared))
    sheets = [name for name in (SHEET, OLD_SHEET) if name in file_names(prepared.root)]
    if sheets:
        table.add_row("examples", Text(storage.join(prepared.root, sheets[0])))
    table.add_row("time", duration(info["seconds"]))
    return table


def _duplicates_text(prepared: Prepared) -> str:
    counts = prepared.info["copies"]
    searched = configuration.data_from_dict(prepared.info["config"]).near_duplicates
    near = f"{counts['near']:,}" if searched else "not searched"
    if searched and not counts["groups"]:
        return "none"
    return f"identical: {counts['identical']:,}, near-duplicates: {near}, groups: {counts['groups']:,}"

"""What to know of a prepared set before training, as tables for a terminal: classes, splits, sizes, unreadable files, duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from animalclf.data.prepared_set import INFO, MANIFEST, Prepared
from animalclf.prepare.manifest import LISTED, contradictory_groups
from animalclf.prepare.output_dir import SHEET
from animalclf.prepare.split import SPLITS, straddling
from animalclf.utils import storage
from animalclf.utils.console import duration


def summary(prepared: Prepared) -> RenderableType:
    """For 80 columns."""
    manifest, info = prepared.manifest, prepared.info
    ok = manifest[manifest["status"] == "ok"]
    parts: list[RenderableType] = [_class_table(prepared), _facts(prepared, ok)]
    bad = [f"{bad['path']}: {bad['reason']}" for bad in info["bad"]]
    contradictory = [_equal(rows, "label") for rows in contradictory_groups(manifest)]
    across = [_equal(rows, "split") for _, rows in ok[ok["group"].isin(straddling(manifest))].groupby("group")]
    for title, lines, file in (
        (f"unreadable files, skipped: {len(bad):,}", bad, INFO),
        ("duplicates with contradictory labels (kept in the same split; fix the labels)", contradictory, MANIFEST),
        ("duplicates in different splits, as given (scores may be too good)", across, MANIFEST),
    ):
        if lines:
            more = (
                [f"and {len(lines) - LISTED:,} more, see {storage.join(prepared.root, file)}"]
                if len(lines) > LISTED
                else []
            )
            parts.append(Text(f"\n{title}", style="bold yellow"))
            parts += [Text(f"  {line}", overflow="fold") for line in [*lines[:LISTED], *more]]
    return Group(*parts)


def _equal(rows: pd.DataFrame, column: str) -> str:
    """Images of one group with what differs: a.jpg (cat) = b.jpg (dog)."""
    shown = [f"{path} ({value})" for path, value in zip(rows["path"][:4], rows[column][:4], strict=True)]
    return " = ".join(shown) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")


def _class_table(prepared: Prepared) -> Table:
    counts = prepared.info["counts"]
    splits = [name for name in SPLITS if any(counts[name].values())]
    table = Table(title=Text(f"prepared set {prepared.root}", overflow="fold"), title_justify="left", show_footer=True)
    table.add_column("class", footer="all", overflow="fold")
    for name in splits:
        table.add_column(name, footer=f"{sum(counts[name].values()):,}", justify="right")
    total = {label: sum(counts[name][label] for name in splits) for label in prepared.classes}
    table.add_column("share", footer="100.0%", justify="right")
    for label in prepared.classes:
        share = f"{total[label] / sum(total.values()):.1%}"
        table.add_row(Text(label), *(f"{counts[name][label]:,}" for name in splits), share)
    return table


def _facts(prepared: Prepared, ok: pd.DataFrame) -> Table:
    info, duplicates = prepared.info, prepared.info["copies"]
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    area = ok["width"].astype(np.int64) * ok["height"]
    by_area = ok.iloc[np.argsort(area.to_numpy(), kind="stable")]
    sizes = [f"{row.width} x {row.height}" for row in by_area.iloc[[0, len(by_area) // 2, -1]].itertuples()]
    table.add_row("pictures", f"{info['ok']:,} of {info['images']:,} files, stored at {info['stored_size']} px")
    total = [sum(info["counts"][name][label] for name in SPLITS) for label in prepared.classes]
    table.add_row("balance", f"the largest class has {max(total) / min(total):.1f} times the pictures of the smallest")
    table.add_row("sizes", f"smallest {sizes[0]}, median {sizes[1]}, largest {sizes[2]}")
    if ignored := info["ignored"]["files"]:
        table.add_row(
            "ignored", Text(f"{ignored:,} files that are no pictures, such as {info['ignored']['examples'][0]}")
        )
    noted = ok.loc[ok["note"] != "", "note"].value_counts()
    if len(noted):
        table.add_row("noted", Text("; ".join(f"{note}: {count:,}" for note, count in noted[:8].items())))
    counts = f"{duplicates['identical']:,} identical, {duplicates['near']:,} near; groups: {duplicates['groups']:,}"
    table.add_row("duplicates", counts if duplicates["groups"] else "none found")
    if duplicates["near"]:
        table.add_row("examples", Text(storage.join(prepared.root, SHEET)))
    table.add_row("time", duration(info["seconds"]))
    return table

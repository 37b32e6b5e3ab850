"""The sections of the report as HTML. Every text that comes from a user goes through `esc`; every function takes plain data and returns text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as esc
from typing import Any

import pandas as pd

from animalclf.data.prepared_set import Prepared
from animalclf.report.seed_table import COLUMNS, seed_rows
from animalclf.utils.console import duration

MANY = 40  # classes from which on a confusion matrix is shown as a plot only


def rows_table(headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; the cells are HTML already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    foot = f'<p class="soft">{caption}</p>' if caption else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{foot}'


def leaderboard(board: dict[str, Any]) -> str:
    """How good each recipe and ensemble is, which differences are real, and what each cost."""
    rows, costs = [], []
    for row in board["rows"]:
        score, epoch, speed = row["balanced_accuracy"], row.get("best_epoch"), row.get("pictures_per_s")
        spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
        rows.append(
            [
                esc(row["recipe"]),
                str(len(row["seeds"]) or "–"),
                f"<b>{score['mean']:.3f}</b>{spread}",
                f"{score['low']:.3f} to {score['high']:.3f}",
                *(f"{row[name]['mean']:.3f}" for name in ("accuracy", "macro_f1", "loss", "ece")),
            ]
        )
        costs.append(
            [
                esc(row["recipe"]),
                "–" if epoch is None else f"{epoch['mean']:.0f}",
                "–" if speed is None else f"{speed:,.0f}",
                duration(row["seconds_to_best"]),
                duration(row["device_seconds_to_best"]),
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['trainable'] / 1e6:.2f} M",
            ]
        )
    headings = ["recipe", "seeds", "balanced accuracy", "95 % interval", "accuracy", "macro F1", "loss", "calibration error"]
    text = rows_table(headings, rows, "Mean ± deviation over seeds. The interval covers seeds and pictures; with one seed the pictures alone.")
    if board["pairs"]:
        pairs = [
            [
                esc(p["a"]),
                esc(p["b"]),
                f"{p['difference']:+.3f}",
                f"{p['low']:+.3f} to {p['high']:+.3f}",
                f"{p['p']:.3f}" if p["p"] >= 0.001 else "&lt; 0.001",
                "yes" if p["real"] else "no",
            ]
            for p in board["pairs"]
        ]
        text += "<h3>Which differences are real</h3>" + rows_table(["better", "than", "by", "95 % interval", "p", "real"], pairs)
    note = "An ensemble costs what its members cost together." if any(row["kind"] == "ensemble" for row in board["rows"]) else ""
    headings = ["recipe", "best epoch", "pictures/s in training", "time to it", "device time", "parameters", "trainable"]
    return text + "<h3>What they cost</h3>" + rows_table(headings, costs, note)


def one_result(found: dict[str, Any]) -> str:
    """The figures of one run with their intervals."""
    rows = [[name, f"<b>{found[key]:.4f}</b>", "{:.4f} to {:.4f}".format(*found["intervals"][key])] for key, name in
            (("balanced_accuracy", "balanced accuracy"), ("accuracy", "accuracy"), ("macro_f1", "macro F1"))]  # fmt: skip
    rows += [["loss", f"{found['loss']:.4f}", ""], ["calibration error", f"{found['ece']:.4f}", ""], ["pictures", f"{found['rows']:,}", ""]]
    return rows_table(["on validation", "", "95 % interval"], rows)


def seed_comparison(histories: Sequence[tuple[str, str, list[dict[str, Any]]]]) -> str:
    """The seed's own table, ours beside it at the same epochs. `histories`: (label, model, rows of metrics.jsonl)."""
    text = ""
    for model in dict.fromkeys(model for _, model, _ in histories):
        seed = seed_rows(model)
        if not seed:
            continue
        rows = []
        for epoch, *figures in seed:
            rows.append([str(epoch), "the seed", *(f"{value:.4f}" for value in figures)])
            for label, mine, history in histories:
                here = {row["epoch"]: row for row in history}.get(epoch) if mine == model else None
                if here:
                    rows.append(["", esc(label), *(f"{here[name]:.4f}" if name in here else "–" for name in COLUMNS)])
        headings = ["epoch", "", "train accuracy", "validation accuracy", "train loss", "validation loss"]
        text += f"<h3>{esc(model)}</h3>" + rows_table(headings, rows)
    return text and text + '<p class="soft">The seed validated on augmented pictures of a random split, with copies on both sides.</p>'


def confusion(found: dict[str, Any]) -> str:
    classes, counts = found["classes"], found["confusion"]
    if len(classes) > MANY:
        return ""
    head = "".join(f"<th>{esc(name)}</th>" for name in classes)
    body = ""
    for name, row in zip(classes, counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(f'<td style="background:rgba(var(--shade),{count / total * 0.75:.2f})">{count or ""}</td>' for count in row)
        body += f'<tr><th class="side">{esc(name)}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="soft">Rows: true class. Columns: predicted. Shade: share of the row.</p>'
    )


def per_class(found: dict[str, Any]) -> str:
    each = found["per_class"]
    order = sorted(range(len(found["classes"])), key=lambda number: (each["f1"][number] is None, each["f1"][number] or 0))
    cells = [
        [
            esc(found["classes"][n]),
            f"{each['support'][n]:,}",
            *("–" if each[k][n] is None else f"{each[k][n]:.3f}" for k in ("recall", "precision", "f1")),
        ]
        for n in order
    ]
    return rows_table(["class", "pictures", "recall", "precision", "F1"], cells, "The hardest class first.")


def gallery(pictures: pd.DataFrame, thumbnails: dict[str, str], say: Any) -> str:
    """Pictures with their file names; `say(row)` is the line (HTML) under each."""
    items = ""
    for row in pictures.itertuples():
        path = str(row.path)
        image = f'<img src="{thumbnails[path]}" alt="" loading="lazy">' if path in thumbnails else '<span class="none"></span>'
        items += f'<li>{image}{say(row)}<br><span class="soft">{esc(path)}</span></li>'
    return f'<ul class="gallery">{items}</ul>'


def health(prepared: Prepared) -> str:
    """Counts, bad files, copies, contradictory labels of a prepared set."""
    info = prepared.info
    counts, copies = info.get("counts", {}), info.get("copies", {})
    splits = [name for name in ("train", "val", "test") if any(counts.get(name, {}).values())]
    rows = [[esc(name), *(f"{counts[split].get(name, 0):,}" for split in splits)] for name in prepared.classes] if counts else []
    text = rows_table(["class", *splits], rows) if rows else "<p>No counts are kept with this set.</p>"
    if copies:
        text += (
            f"<p>{copies['identical']:,} identical files and {copies['near']:,} near-copies, in {copies['groups']:,} groups; each group lies on one "
            f"side of the split ({copies['across_splits']:,} across). {copies['contradictory']:,} groups carry more than one label.</p>"
        )
    manifest = prepared.manifest
    if "group" in manifest and "copy_how" in manifest:
        copied = manifest[manifest["group"].isin(manifest.loc[manifest["copy_how"] != "", "group"])]
        several = copied.groupby("group")["label"].transform("nunique") > 1
        told = [[esc(str(row.path)), esc(str(row.label))] for row in copied[several].sort_values("group").head(20).itertuples()]
        text += ("<h3>Copies under different labels</h3>" + rows_table(["file", "label"], told)) if told else ""
    bad = info.get("bad", [])
    listed = [[esc(one["path"]), f'<span class="text">{esc(one["reason"])}</span>'] for one in bad[:30]]
    text += f"<p>{len(bad):,} files could not be used{':' if bad else '.'}</p>" + (rows_table(["file", "why"], listed) if bad else "")
    return text


def speed(results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Throughput and where the time went. `results`: (label, result.json)."""
    rows = []
    for label, result in results:
        parts = result.get("time", {})
        rows.append(
            [
                esc(label),
                f"{result['pictures_per_s']:,.0f}",
                f"{result['wait_share']:.1%}",
                duration(result["seconds"]),
                *(duration(parts[name]) if name in parts else "–" for name in ("step", "validate", "keep", "augment")),
                f"{result['workers']}, {esc(result['precision'])}",
            ]
        )
    waiting = [label for label, result in results if result["wait_share"] > 0.05]
    advice = "" if not waiting else (
        f"<p>{esc(', '.join(waiting))} waited for pictures more than 5 % of the time: give the input more CPUs, augment on the GPU "
        "(augment.on=device), or store the pictures nearer to the model's input size.</p>"
    )  # fmt: skip
    headings = ["run", "pictures/s", "waiting for pictures", "epochs took", "steps", "validating", "keeping checkpoints", "input tasks", "workers"]
    return rows_table(headings, rows, "Input tasks augment beside the steps, so their time is not part of the epochs.") + advice

"""The manifest of a prepared set: checks, groups of duplicates, and the content of dataset.json. Plain pandas."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import pandas as pd
import PIL

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data.prepared_set import FORMAT, DatasetInfo, DuplicateCounts, Prepared
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.prepare.sources import Source
from animalclf.prepare.split import SPLITS, straddling_groups
from animalclf.utils.row_file import Rows
from animalclf.utils.text import percent

SHEET_PAIRS = 24
MAX_LISTED = 20  # unreadable files and the like, in dataset.json and the summary
MAX_NAMED_FILES, MAX_NAMED_CLASSES = 10, 5  # in an error


def check_readable(manifest: pd.DataFrame, max_unreadable: float) -> None:
    """Raise UserError for a class without a readable image, for more unreadable files than the fraction
    `max_unreadable`, and for fewer than two classes. The error lists unreadable files."""
    unreadable = manifest[manifest["status"] != "ok"]
    classes = sorted(manifest["label"].unique())
    readable_classes = set(manifest.loc[manifest["status"] == "ok", "label"])
    files = zip(unreadable["path"][:MAX_NAMED_FILES], unreadable["status"][:MAX_NAMED_FILES], strict=True)
    listing = "".join(f"\n  {path}: {reason}" for path, reason in files)
    if len(unreadable) > MAX_NAMED_FILES:
        listing += f"\n  and {len(unreadable) - MAX_NAMED_FILES:,} more"
    lost = [name for name in classes if name not in readable_classes]
    if lost:
        names = ", ".join(map(repr, lost[:MAX_NAMED_CLASSES]))
        more = f" and {len(lost) - MAX_NAMED_CLASSES} more" if len(lost) > MAX_NAMED_CLASSES else ""
        raise UserError(
            f"no readable image in class {names}{more}; fix the files or remove the class. Unreadable files:{listing}"
        )
    fraction = len(unreadable) / len(manifest)
    if fraction > max_unreadable:
        allowed = min(1.0, np.ceil(fraction * 100 + 1e-9) / 100)
        raise UserError(
            f"{len(unreadable):,} of {len(manifest):,} files ({percent(fraction)}) are unreadable, more than "
            f"data.max_unreadable={max_unreadable:g} allows; "
            f"fix or remove them, or skip them with --set data.max_unreadable={allowed:g}. Unreadable files:{listing}"
        )
    if len(classes) < 2:
        raise UserError(f"only one class, {classes[0]!r}; a classifier needs at least two")


def add_groups(
    manifest: pd.DataFrame,
    signatures: Rows | None,
    read_image: Callable[[str], np.ndarray],
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[find.DuplicatePair]:
    """Add the columns group, duplicate_of, duplicate_kind and duplicate_confidence. `signatures`: uint8 (rows, 1600);
    None groups identical files only.

    `progress` is called with the fraction that is done. Returns near-duplicates of all confidences, the least confident
    first.
    """
    ok = np.flatnonzero(manifest["status"] == "ok")
    path, digests = manifest["path"].to_numpy(dtype=object), manifest["sha256"].to_numpy(dtype=object)[ok]
    if signatures is None:
        matches = find.identical_files(digests)
    else:
        matches = find.find_duplicates(digests, signatures, lambda row: read_image(path[ok[row]]), progress, ok)
    duplicate = (matches["kind"] != "").to_numpy()
    group = np.arange(len(manifest), dtype=np.int64)  # an unreadable file is alone in its group
    group[ok] = ok[matches["representative"]]
    manifest["group"] = group
    manifest["duplicate_of"], manifest["duplicate_kind"], manifest["duplicate_confidence"] = "", "", np.float32("nan")
    manifest.loc[ok[duplicate], "duplicate_of"] = path[group[ok[duplicate]]]
    manifest.loc[ok[duplicate], "duplicate_kind"] = matches["kind"].to_numpy()[duplicate]
    manifest.loc[ok[duplicate], "duplicate_confidence"] = matches["confidence"].to_numpy(np.float32)[duplicate]
    pairs = matches[matches["kind"] == "near"].sort_values("confidence", kind="stable")
    if len(pairs):
        pairs = pairs.iloc[np.unique(np.linspace(0, len(pairs) - 1, SHEET_PAIRS).astype(int))]
    rows = zip(pairs.index, pairs["partner"], pairs["confidence"], strict=True)
    return [
        find.DuplicatePair(path[ok[row]], path[ok[partner]], float(confidence), "near")
        for row, partner, confidence in rows
    ]


def describe(
    manifest: pd.DataFrame, source: Source, config: Data, inputs: str, shards: dict[int, str], seconds: float
) -> DatasetInfo:
    """The content of dataset.json. `shards`: file name by the shard number in the manifest."""
    ok = manifest[manifest["status"] == "ok"]
    classes = sorted(ok["label"].unique())
    rows = manifest["shard"].value_counts()
    counts = ok.groupby(["split", "label"]).size()
    unreadable = manifest[manifest["status"] != "ok"]
    info: DatasetInfo = {
        "format": FORMAT,
        "classes": classes,
        "stored_size": config.stored_size,
        "fingerprint": fingerprint(manifest, config),
        "inputs": inputs,
        "config": configuration.to_dict(config),
        "source": source.root,
        "given_splits": sorted(set(source.files["split"]) - {""}),
        "images": len(manifest),
        "ok": len(ok),
        "counts": {name: {label: int(counts.get((name, label), 0)) for label in classes} for name in SPLITS},
        "duplicates": _count_duplicates(manifest),
        "shards": [{"file": name, "rows": int(rows[number])} for number, name in sorted(shards.items())],
        "seconds": round(seconds, 2),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "unreadable": [
            {"path": path, "reason": reason}
            for path, reason in zip(unreadable["path"], unreadable["status"], strict=True)
        ],
        "ignored": {
            "files": len(source.ignored),
            "examples": source.ignored[:MAX_LISTED],
            "suffixes": suffix_counts(source.ignored),
        },
        "versions": {"opencv": cv2.__version__, "pillow": PIL.__version__, "numpy": np.__version__},
    }
    return {**info, "corrections": source.corrections} if source.corrections else info


def suffix_counts(paths: Iterable[str]) -> dict[str, int]:
    """The number of files by their extension in lower case, the most frequent first."""
    suffixes = (os.path.splitext(path)[1].lower() or "without extension" for path in paths)
    return dict(Counter(suffixes).most_common())


def _count_duplicates(manifest: pd.DataFrame) -> DuplicateCounts:
    kinds = manifest["duplicate_kind"].value_counts()
    return {
        "identical": int(kinds.get("identical", 0)),
        "near": int(kinds.get("near", 0)),
        "groups": int(manifest.loc[manifest["duplicate_kind"] != "", "group"].nunique()),
        "contradictory": len(contradictory_groups(manifest)),
        "across_splits": len(straddling_groups(manifest)),
    }


def fingerprint(manifest: pd.DataFrame, config: Data) -> str:
    """SHA-256 (hex) of what training sees: path, label, split, content and status of every row, the settings, and how
    much each large image was reduced while it was decoded."""
    digest = hashlib.sha256(configuration.hashed_json(config).encode())
    columns = [manifest[name] for name in ("path", "label", "split", "sha256", "status")]
    scale = manifest["scale"].astype(str)
    columns[-1] = columns[-1].where(manifest["scale"] == 1, columns[-1] + "\x1f1/" + scale)
    for row in zip(*columns, strict=True):
        digest.update("\x1f".join(row).encode() + b"\x1e")
    return digest.hexdigest()


def differences(prepared: Prepared, source: Source, config: Data) -> str:
    """The differences between the inputs of a prepared set and the current ones, for a message."""
    stored = configuration.to_dict(configuration.data_from_dict(prepared.info["config"]))
    current = configuration.to_dict(config)
    changes = [f"data.{key}: {stored[key]} -> {current[key]}" for key in current if stored[key] != current[key]]
    if prepared.info["source"] != source.root:
        changes.append(f"image folder: {prepared.info['source']} -> {source.root}")
    splits_before, splits = prepared.info.get("given_splits", []), sorted(set(source.files["split"]) - {""})
    if splits_before != splits:
        changes.append(f"given splits: {', '.join(splits_before) or 'none'} -> {', '.join(splits) or 'none'}")
    if not (stored["limit"] or config.limit):
        merged = prepared.manifest[["path", "label", "bytes", "split"]].merge(
            source.files, on="path", how="outer", suffixes=("_old", ""), indicator="where"
        )
        common = merged[merged["where"] == "both"]
        counts = {
            "added": (merged["where"] == "right_only").sum(),
            "removed": (merged["where"] == "left_only").sum(),
            "changed": (common["bytes"] != common["bytes_old"]).sum(),
            "relabelled": (common["label"] != common["label_old"]).sum(),
        }
        moved = common[(common["split"] != "") & (common["split_old"] != "") & (common["split"] != common["split_old"])]
        counts["given another split"] = len(moved)
        changes += [f"images {change}: {count:,}" for change, count in counts.items() if count]
    return "; ".join(changes) or "the modification time of some images"


def contradictory_groups(manifest: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each group of duplicates with more than one label."""
    ok = manifest[manifest["status"] == "ok"]
    labels = ok.drop_duplicates(["group", "label"])["group"].value_counts()
    return [rows for _, rows in ok[ok["group"].isin(labels.index[labels > 1])].groupby("group")]

"""The manifest of a prepared set: groups of duplicates, checks, and the content of dataset.json. Plain pandas."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pandas as pd
import PIL

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data.prepared_set import FORMAT, Prepared
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.prepare.sources import Source
from animalclf.prepare.split import SPLITS, straddling

SHEET_PAIRS = 24
LISTED = 20  # unreadable files and the like, in dataset.json and the summary


def check_readable(manifest: pd.DataFrame, max_unreadable: float) -> None:
    """Refuse a set with too many bad files, without a readable picture in a class, or with one class only. Raises UserError that lists them."""
    bad = manifest[manifest["status"] != "ok"]
    classes = sorted(manifest["label"].unique())
    readable = set(manifest.loc[manifest["status"] == "ok", "label"])
    examples = "".join(
        f"\n  {path}: {reason}" for path, reason in zip(bad["path"][:10], bad["status"][:10], strict=True)
    )
    examples += f"\n  and {len(bad) - 10:,} more" if len(bad) > 10 else ""
    unreadable = [name for name in classes if name not in readable]
    if unreadable:
        names = ", ".join(map(repr, unreadable[:5])) + (
            f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        )
        raise UserError(
            f"no readable picture in class {names}; mend the files or remove the class. Bad files:{examples}"
        )
    if len(bad) > max_unreadable * len(manifest):
        share = f"{len(bad):,} of {len(manifest):,} files ({len(bad) / len(manifest):.1%}) cannot be used, more than data.max_unreadable={max_unreadable:g} allows"
        raise UserError(
            f"{share}; mend or remove them, or raise it with --set data.max_unreadable={_above(len(bad) / len(manifest))}. Bad files:{examples}"
        )
    if len(classes) < 2:
        raise UserError(f"only one class, {classes[0]!r}; a classifier needs at least two")


def _above(share: float) -> str:
    return f"{min(1.0, np.ceil(share * 100 + 1e-9) / 100):g}"


def add_groups(
    manifest: pd.DataFrame, signatures: np.ndarray | None, progress: Callable[[float], None] = lambda share: None
) -> list[tuple[str, str, float, str]]:
    """Fill group, copy_of, copy_how and copy_confidence. `signatures`: uint8 (rows, K); without them only identical files are duplicates.

    Returns examples of near-duplicates, the doubtful ones first: (path, path, confidence, how).
    """
    ok = np.flatnonzero(manifest["status"] == "ok")
    path, digests = manifest["path"].to_numpy(dtype=object), manifest["sha256"].to_numpy(dtype=object)[ok]
    found = _identical(digests) if signatures is None else find.find_duplicates(list(digests), signatures[ok], progress)
    duplicate = (found["how"] != "").to_numpy()
    group = np.arange(
        len(manifest), dtype=np.int64
    )  # the row of the representative; an unreadable file is a group of its own
    group[ok] = ok[found["representative"]]
    manifest["group"] = group
    manifest["copy_of"], manifest["copy_how"], manifest["copy_confidence"] = "", "", np.float32("nan")
    manifest.loc[ok[duplicate], "copy_of"] = path[group[ok[duplicate]]]
    manifest.loc[ok[duplicate], "copy_how"] = found["how"].to_numpy()[duplicate]
    manifest.loc[ok[duplicate], "copy_confidence"] = found["confidence"].to_numpy(np.float32)[duplicate]
    pairs = found[found["how"] == "near"].sort_values("confidence", kind="stable")
    pairs = pairs.iloc[np.unique(np.linspace(0, len(pairs) - 1, SHEET_PAIRS).astype(int))] if len(pairs) else pairs
    rows = zip(pairs.index, pairs["partner"], pairs["confidence"], strict=True)
    return [(path[ok[row]], path[ok[partner]], float(confidence), "near") for row, partner, confidence in rows]


def _identical(digests: np.ndarray) -> pd.DataFrame:
    """What `find.find_duplicates` gives where only identical files are duplicates."""
    first, content = np.unique(digests.astype(str), return_index=True, return_inverse=True)[1:]
    original = first[content]
    duplicate = original != np.arange(len(digests))
    how, confidence = np.where(duplicate, "identical", ""), np.where(duplicate, 1.0, np.nan)
    return pd.DataFrame(
        {"representative": original, "how": how, "confidence": confidence, "partner": np.where(duplicate, original, -1)}
    )


def describe(
    manifest: pd.DataFrame, source: Source, config: Data, inputs: str, files: dict[int, str], seconds: float
) -> dict[str, Any]:
    """The content of dataset.json. `files`: shard number of the manifest -> file name."""
    ok = manifest[manifest["status"] == "ok"]
    classes = sorted(ok["label"].unique())
    rows = manifest["shard"].value_counts()
    counted = ok.groupby(["split", "label"]).size()
    bad = manifest[manifest["status"] != "ok"]
    how = manifest["copy_how"].value_counts()
    return {
        "format": FORMAT,
        "classes": classes,
        "stored_size": config.stored_size,
        "fingerprint": fingerprint(manifest, config),
        "inputs": inputs,
        "config": configuration.to_dict(config),
        "source": source.root,
        "images": len(manifest),
        "ok": len(ok),
        "counts": {name: {label: int(counted.get((name, label), 0)) for label in classes} for name in SPLITS},
        "copies": {
            "identical": int(how.get("identical", 0)),
            "near": int(how.get("near", 0)),
            "groups": int(manifest.loc[manifest["copy_how"] != "", "group"].nunique()),
            "contradictory": len(contradictory_groups(manifest)),
            "across_splits": len(straddling(manifest)),
        },
        "shards": [{"file": name, "rows": int(rows[number])} for number, name in sorted(files.items())],
        "seconds": round(seconds, 2),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bad": [{"path": path, "reason": reason} for path, reason in zip(bad["path"], bad["status"], strict=True)],
        "ignored": {"files": len(source.ignored), "examples": source.ignored[:LISTED]},
        "versions": {"opencv": cv2.__version__, "pillow": PIL.__version__, "numpy": np.__version__},
    }


def fingerprint(manifest: pd.DataFrame, config: Data) -> str:
    """Hash of what training sees: path, label, split, content and status of every row, and the settings."""
    digest = hashlib.sha256(configuration.hashed_json(config).encode())
    columns = [manifest[name] for name in ("path", "label", "split", "sha256", "status")]
    for row in zip(*columns, strict=True):
        digest.update("\x1f".join(row).encode() + b"\x1e")
    return digest.hexdigest()


def changes(prepared: Prepared, source: Source, config: Data) -> str:
    """What differs between a prepared set and what is asked for now, in words."""
    stored = configuration.data_from_dict(prepared.info["config"])
    old, new = configuration.to_dict(stored), configuration.to_dict(config)
    said = [f"data.{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]
    if prepared.info["source"] != source.root:
        said.append(f"pictures: {prepared.info['source']} -> {source.root}")
    if not (old["limit"] or config.limit):
        both = prepared.manifest[["path", "label", "bytes"]].merge(
            source.files, on="path", how="outer", suffixes=("_old", ""), indicator="where"
        )
        same = both[both["where"] == "both"]
        amounts = {
            "added": (both["where"] == "right_only").sum(),
            "removed": (both["where"] == "left_only").sum(),
            "changed": (same["bytes"] != same["bytes_old"]).sum(),
            "labelled differently": (same["label"] != same["label_old"]).sum(),
        }
        said += [f"pictures {what}: {amount:,}" for what, amount in amounts.items() if amount]
    return "; ".join(said) or "files were written again since, or given other splits"


def contradictory_groups(manifest: pd.DataFrame) -> list[pd.DataFrame]:
    """The groups of duplicates that carry more than one label."""
    ok = manifest[manifest["status"] == "ok"]
    labels = ok.drop_duplicates(["group", "label"])["group"].value_counts()
    return [rows for _, rows in ok[ok["group"].isin(labels.index[labels > 1])].groupby("group")]

"""Data health: class counts, duplicates, conflicting labels and skipped files of the prepared set."""

from typing import NamedTuple

from animalclf.data.prepared_set import Prepared
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register

MAX_SKIPPED, MAX_CONFLICTS = 30, 20  # rows shown


class LabelledImage(NamedTuple):
    """A manifest path and its label."""

    path: str
    label: str


@register("data_health", title="Data health", order=110)
def data_health(data: ReportData) -> Content:
    if data.prepared is None:
        return Content({"error": data.prepared_error})
    info = data.prepared.info
    counts = info.get("counts", {})
    splits = [name for name in ("train", "val", "test") if any(counts.get(name, {}).values())]
    names = data.prepared.classes if counts else []
    skipped = info.get("unreadable", [])
    return Content(
        {
            "error": "",
            "splits": splits,
            "classes": [{"name": name, "counts": [counts[split].get(name, 0) for split in splits]} for name in names],
            "duplicates": info.get("duplicates", {}),
            "conflicts": conflicting_labels(data.prepared)[:MAX_CONFLICTS],
            "skipped": skipped[:MAX_SKIPPED],
            "skipped_count": len(skipped),
        }
    )


def conflicting_labels(prepared: Prepared) -> list[LabelledImage]:
    """The images of duplicate groups with more than one label, group by group."""
    manifest = prepared.manifest
    if "group" not in manifest or "duplicate_kind" not in manifest:
        return []
    duplicates = manifest[manifest["group"].isin(manifest.loc[manifest["duplicate_kind"] != "", "group"])]
    conflicting = duplicates[duplicates.groupby("group")["label"].transform("nunique") > 1]
    conflicting = conflicting.sort_values("group")
    return [LabelledImage(*row) for row in zip(conflicting["path"], conflicting["label"], strict=True)]

"""The prepared set: a folder or bucket prefix with the manifest, dataset.json and a few large Parquet shards of
images."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from animalclf.data.shards import PREPARE_AGAIN
from animalclf.errors import UserError
from animalclf.rows import html_table
from animalclf.utils import storage
from animalclf.utils.text import count_text, reason, shown

FORMAT = 2
MANIFEST = "manifest.parquet"
INFO = "dataset.json"  # written last: its presence marks a complete set
COLUMNS = ("path", "label", "split", "status", "shard", "row")  # of the manifest, without which a set cannot be used
# Names of older versions -> current names.
OLD_KEYS = {"pictures": "images", "copies": "duplicates", "bad": "unreadable"}
OLD_COLUMNS = {
    "copy_of": "duplicate_of",
    "copy_how": "duplicate_kind",
    "copy_confidence": "duplicate_confidence",
}


class DuplicateCounts(TypedDict):
    """Duplicates beyond the first image of each group, and their groups: all, with more than one label, in more than
    one split."""

    identical: int
    near: int
    groups: int
    contradictory: int
    across_splits: int


class Decision(TypedDict):
    """A line of a file of corrections: `decision` is keep, relabel (to the class `suggested`) or drop."""

    path: str
    label: str
    suggested: str
    decision: str


class CorrectionsRecord(TypedDict):
    """The corrections of the labels that a set was prepared with: the file, the number of images by decision, the lines
    without one, and all decisions."""

    file: str
    relabelled: int
    dropped: int
    kept: int
    undecided: int
    decisions: list[Decision]


class Shard(TypedDict):
    file: str
    rows: int


class UnreadableFile(TypedDict):
    path: str
    reason: str


class IgnoredFiles(TypedDict):
    """The number of files that are no images, some of their paths, and the number of each extension."""

    files: int
    examples: list[str]
    suffixes: NotRequired[dict[str, int]]
    """Not in sets of older versions."""


class DatasetInfo(TypedDict, total=False):
    """The content of dataset.json of format 2."""

    format: int
    classes: list[str]
    stored_size: int
    fingerprint: str
    inputs: str
    config: dict[str, object]
    source: str
    given_splits: list[str]
    images: int
    ok: int
    counts: dict[str, dict[str, int]]
    duplicates: DuplicateCounts
    shards: list[Shard]
    seconds: float
    created: str
    unreadable: list[UnreadableFile]
    ignored: IgnoredFiles
    corrections: CorrectionsRecord
    versions: dict[str, str]


class _RequiredShard(BaseModel):
    file: Annotated[str, Field(pattern=r"^[^/\\]+\.parquet$")]  # in the folder of the set
    rows: Annotated[int, Field(ge=0)]


class _RequiredInfo(BaseModel):
    """The keys of dataset.json without which a set cannot be used."""

    classes: Annotated[list[str], Field(min_length=1)]
    stored_size: Annotated[int, Field(gt=0)]
    fingerprint: str
    config: dict[str, object]
    shards: list[_RequiredShard]


@dataclass(frozen=True)
class Prepared:
    """An opened prepared set. `manifest` has one row per image, in the order of its index; `info` is the content of
    dataset.json."""

    root: str
    info: DatasetInfo
    manifest: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """Class names, sorted; a label is a position in this list."""
        return list(self.info["classes"])

    @property
    def stored_size(self) -> int:
        """Side in pixels of the stored images."""
        return int(self.info["stored_size"])

    @property
    def fingerprint(self) -> str:
        """Hex digits that change with any input or setting."""
        return str(self.info["fingerprint"])

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all stored images together, decoded."""
        return sum(shard["rows"] for shard in self.info["shards"]) * self.stored_size**2 * 3

    def __repr__(self) -> str:
        counts = f"{len(self.classes)} classes, {count_text(len(self.manifest), 'image')}"
        return f"Prepared({self.root!r}: {counts}, stored at {self.stored_size} px)"

    def _repr_html_(self) -> str:
        """For notebooks: root, stored size, and the images of each class in each split."""
        splits = ("train", "val", "test")
        counts = [np.bincount(self.labels[self.rows(split)], minlength=len(self.classes)) for split in splits]
        lines = [(name, *(int(count[number]) for count in counts)) for number, name in enumerate(self.classes)]
        head = html_table(("", self.root), (("stored at", f"{self.stored_size} px"),))
        return head + html_table(("class", *splits), lines)

    def shard_paths(self) -> list[str]:
        """The paths or URLs of the shards, by shard number."""
        return [storage.join(self.root, shard["file"]) for shard in self.info["shards"]]

    def rows(self, split: str) -> np.ndarray:
        """Manifest rows (int64, ascending) of the readable images of `split` (train, val or test)."""
        manifest = self.manifest
        return np.flatnonzero((manifest["split"] == split) & (manifest["status"] == "ok")).astype(np.int64)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Class number of every manifest row, int64 (rows,); -1 if the row has no label."""
        positions = {name: number for number, name in enumerate(self.classes)}
        return self.manifest["label"].map(positions).fillna(-1).to_numpy(np.int64)

    @functools.cached_property
    def groups(self) -> np.ndarray | None:
        """Group of duplicates of every manifest row, int64 (rows,); None if the set does not know them."""
        return self.manifest["group"].to_numpy(np.int64) if "group" in self.manifest else None


def open_prepared(root: str) -> Prepared:
    """Open a prepared set. Raises UserError if there is none, or if its format is another version's."""
    root = storage.absolute(root)
    try:
        info = storage.read_json(storage.join(root, INFO))
    except FileNotFoundError as error:
        raise UserError(
            f"{root}: not a prepared set ({INFO} is missing); "
            f"make one with: animalclf prepare --data IMAGES --out {root}"
        ) from error
    _check_info(root, info)
    info = {OLD_KEYS.get(key, key): value for key, value in info.items()}
    url = storage.join(root, MANIFEST)
    try:
        manifest = storage.read_table(url, COLUMNS).rename(columns=OLD_COLUMNS)
    except FileNotFoundError as error:
        raise UserError(f"{url}: is missing; {PREPARE_AGAIN}") from error
    prepared = Prepared(root, cast(DatasetInfo, info), manifest)
    _check_shards(prepared, url)
    return prepared


def _check_info(root: str, info: Any) -> None:
    """Raise UserError if `info` is not the content of dataset.json of this format."""
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        stored_format = info.get("format") if isinstance(info, dict) else None
        raise UserError(
            f"{root}: prepared set of format {stored_format}, this version reads format {FORMAT}; {PREPARE_AGAIN}"
        )
    try:
        _RequiredInfo.model_validate(info)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise UserError(
            f"{root}: {INFO} is damaged ({key}: {reason(Exception(fault['msg']))}); {PREPARE_AGAIN}"
        ) from error


def _check_shards(prepared: Prepared, url: str) -> None:
    """Raise UserError if the manifest, at `url`, has other images than the shards."""
    ok = prepared.manifest[prepared.manifest["status"] == "ok"]
    counts = ok["shard"].value_counts().to_dict()
    if counts != {number: shard["rows"] for number, shard in enumerate(prepared.info["shards"]) if shard["rows"]}:
        raise UserError(f"{url}: has other images than {INFO} beside it; {PREPARE_AGAIN}")
    labels = ok["label"][ok["label"] != ""]
    unknown = labels[~labels.isin(prepared.classes)]
    if len(unknown):
        raise UserError(
            f"{url}: has the label {shown(unknown.iloc[0])}, which is no class in {INFO} beside it; {PREPARE_AGAIN}"
        )


def is_prepared(root: str) -> bool:
    """True if `root` is a complete prepared set."""
    return storage.exists(storage.join(root, INFO))

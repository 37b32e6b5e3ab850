"""Small pictures for the report, from the prepared set's shards."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import cv2
import numpy as np

from animalclf.data.prepared_set import Prepared, open_prepared, read_shard
from animalclf.errors import UserError

SIDE, QUALITY = 112, 80


def prepared_of(root: str) -> Prepared | str:
    """The prepared set of a run, or why its pictures cannot be shown."""
    try:
        return open_prepared(root)
    except UserError as error:
        return str(error)


def thumbnails(prepared: Prepared, paths: Iterable[str]) -> dict[str, str]:
    """A data URI (JPEG, 112 px) for each of `paths` (as in the manifest) that the set holds; a shard that is gone leaves its pictures out."""
    manifest = prepared.manifest
    rows = manifest.loc[manifest["path"].isin(set(paths)) & (manifest["status"] == "ok"), ["path", "shard", "row"]]
    found: dict[str, str] = {}
    for shard, mine in rows.groupby("shard"):
        try:
            images, _ = read_shard(prepared.shard_paths()[int(str(shard))], prepared.stored_size)
        except FileNotFoundError:
            continue
        for path, row in zip(mine["path"], mine["row"], strict=True):
            found[path] = _uri(images[row])
    return found


def _uri(image: np.ndarray) -> str:
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if image.shape[0] > SIDE else image
    _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()

"""Thumbnails for the report, from the prepared set's shards."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from animalclf.data.prepared_set import Prepared
from animalclf.data.resize import shrink
from animalclf.data.shards import MissingShard, read_shard
from animalclf.inference.explanation import jpeg
from animalclf.models.classifier import content_boxes

SIDE, QUALITY = 112, 80
GALLERY = 18  # images in a gallery


def thumbnails(prepared: Prepared, paths: Iterable[str]) -> dict[str, str]:
    """Data URIs (JPEG, at most 112 px) by path, for those of `paths` (as in the manifest) that the prepared set
    holds, without the padding of canvases (`data.resize: keep`). Each shard is read once; the images of a missing shard
    are left out."""
    return {path: thumbnail(image) for path, image in iter_images(prepared, paths)}


def thumbnail(image: np.ndarray) -> str:
    """An image uint8 (H, W, 3) as a data URI (JPEG, at most 112 px)."""
    return data_uri(shrink(image, SIDE), QUALITY)


def stored_images(prepared: Prepared, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """The stored images uint8 (H, W, 3) themselves, otherwise as `thumbnails`."""
    return dict(iter_images(prepared, paths))


def iter_images(prepared: Prepared, paths: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The path and stored image of each, otherwise as `thumbnails`."""
    manifest = prepared.manifest
    # As objects: of its own strings pandas converts each one on its own, five times as slowly.
    is_wanted = manifest["path"].astype(object).isin(set(paths))
    rows = manifest.loc[is_wanted & (manifest["status"] == "ok"), ["path", "shard", "row"]]
    has_canvases = prepared.info["config"].get("resize") == "keep"
    for shard, group in rows.groupby("shard"):
        try:
            images, _ = read_shard(prepared.shard_paths()[int(str(shard))], prepared.stored_size)
        except MissingShard:
            continue
        for path, row in zip(group["path"], group["row"], strict=True):
            yield (
                path,
                (without_padding(images[row]) if has_canvases else images[row]).copy(),
            )  # and not the whole shard


def without_padding(canvas: np.ndarray) -> np.ndarray:
    """The image on a canvas uint8 (S, S, 3), without the padding around it."""
    top, bottom, left, right = content_boxes(torch.from_numpy(canvas[None]))[0].tolist()
    return canvas[top:bottom, left:right]


def data_uri(image: np.ndarray, quality: int) -> str:
    """uint8 (H, W, 3) RGB as the address of a JPEG file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image, quality)).decode()

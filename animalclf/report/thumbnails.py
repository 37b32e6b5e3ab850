"""Thumbnails for the report, from the prepared set's shards."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import cv2
import numpy as np
import torch

from animalclf.data.prepared_set import Prepared
from animalclf.data.shards import read_shard
from animalclf.models.classifier import content_boxes

SIDE, QUALITY = 112, 80
GALLERY = 18  # images in a gallery


def thumbnails(prepared: Prepared, paths: Iterable[str]) -> dict[str, str]:
    """Data URIs (JPEG, at most 112 px) by path, for those of `paths` (as in the manifest) that the prepared set
    holds, without the padding of canvases (`data.resize: keep`). Each shard is read once; the images of a missing shard
    are left out."""
    manifest = prepared.manifest
    rows = manifest.loc[manifest["path"].isin(set(paths)) & (manifest["status"] == "ok"), ["path", "shard", "row"]]
    has_canvases = prepared.info["config"].get("resize") == "keep"
    uris: dict[str, str] = {}
    for shard, group in rows.groupby("shard"):
        try:
            images, _ = read_shard(prepared.shard_paths()[int(str(shard))], prepared.stored_size)
        except FileNotFoundError:
            continue
        for path, row in zip(group["path"], group["row"], strict=True):
            uris[path] = _uri(_content(images[row]) if has_canvases else images[row])
    return uris


def _content(canvas: np.ndarray) -> np.ndarray:
    """The image on a canvas uint8 (S, S, 3), without the padding around it."""
    top, bottom, left, right = content_boxes(torch.from_numpy(canvas[None]))[0].tolist()
    return canvas[top:bottom, left:right]


def _uri(image: np.ndarray) -> str:
    scale = min(1, SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()

"""The content of the map of images on the page: positions, classes and names as JSON, thumbnails as one image."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from animalclf.report.survey import TINY, Survey

LEVELS = 4095  # of a position
MAX_PIXELS = 6_000_000  # of all thumbnails: 20,000 images have some of 32 px
SMALL = 32  # pixels, of thumbnails of many images
MAX_BYTES = 2_200_000  # of the file of the thumbnails
QUALITIES = (60, 45, 30, 20)


def map_json(
    table: pd.DataFrame, classes: Sequence[str], positions: np.ndarray, aspects: np.ndarray, survey: Survey
) -> str:
    """The data of image_map.js, for a <script> of JSON. `table`: predictions of N labelled images, `positions` float
    (N, 2) from 0 to 1, `aspects` float (N,): width over height, `survey` of the same images."""
    numbers = {name: number for number, name in enumerate(classes)}
    is_mistake = (table["predicted"] != table["label"]).to_numpy()
    tiles, side = thumbnail_numbers(is_mistake, np.isfinite(survey.brightness))
    places = np.round(positions * LEVELS).astype(int)
    content = {
        "classes": list(classes),
        "levels": LEVELS,
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "label": table["label"].map(numbers).tolist(),
        "predicted": table["predicted"].map(numbers).tolist(),
        "percent": np.round(table["probability"].to_numpy() * 100).astype(int).tolist(),
        "path": table["path"].tolist(),
        "aspect": np.round(np.nan_to_num(aspects, nan=1.0) * 100).astype(int).tolist(),
        "tile": tiles.tolist(),
        "side": side,
        "columns": columns_of(int((tiles >= 0).sum())),
        "sprite": sprite(survey.tiny, tiles, side),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # ends no element


def thumbnail_numbers(is_mistake: np.ndarray, is_stored: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each image's thumbnail, int64 (N,), -1 for none, and their side in pixels. If not all have one,
    mistakes come first and the others are evenly spread."""
    count = int(is_stored.sum())
    side = TINY if count * TINY**2 <= MAX_PIXELS else SMALL
    most = min(count, MAX_PIXELS // side**2)
    spread = np.random.default_rng(0).permutation(len(is_mistake))
    spread = spread[is_stored[spread]]
    chosen = np.sort(spread[np.argsort(~is_mistake[spread], kind="stable")][:most])
    tiles = np.full(len(is_mistake), -1, np.int64)
    tiles[chosen] = np.arange(len(chosen))
    return tiles, side


def columns_of(count: int) -> int:
    return max(1, math.isqrt(max(count - 1, 0)) + 1)


def sprite(tiny: np.ndarray, tiles: np.ndarray, side: int) -> str:
    """The thumbnails in rows of `columns_of` as one image, a data URI of at most MAX_BYTES; empty for none."""
    rows = np.flatnonzero(tiles >= 0)
    if not len(rows):
        return ""
    columns = columns_of(len(rows))
    canvas = np.zeros((-(-len(rows) // columns) * side, columns * side, 3), np.uint8)
    for number, row in enumerate(rows):
        y, x = number // columns * side, number % columns * side
        canvas[y : y + side, x : x + side] = cv2.resize(tiny[row], (side, side), interpolation=cv2.INTER_AREA)
    for quality in QUALITIES:
        _, data = cv2.imencode(".webp", canvas[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
        if data.nbytes <= MAX_BYTES:
            break
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()

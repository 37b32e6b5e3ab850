"""Duplicates and near-duplicates: images that are the same up to recompression, resizing, cropping, brightness,
mirroring or rotation.

An image's signature is a small grey thumbnail. Signatures are compared in two stages. `candidates` finds by low
frequencies which parts of images may show the same. `verification` moves such a part until it fits best and correlates
the fine detail, without the low frequencies that unrelated images have in common. Brightness and contrast cancel out,
and colour is ignored. Files with the same sha256 are duplicates in any case. The constants of the three modules were
chosen with `python -m benchmarks.duplicates`.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from animalclf.data.resize import resize
from animalclf.duplicates.candidates import SIDE, TILE, Cells, candidate_pairs, whole_spectra
from animalclf.duplicates.verification import MIN_CORRELATION, STEPS, correlations, shrink

# A pair counts from confidence 0.5, which is at MIN_CORRELATION; at SLOPE above it, the confidence is 0.73.
SLOPE = 0.03
# A group of more than MAX_GROUP different files must be connected by pairs of at least GROUP_CONFIDENCE.
MAX_GROUP, GROUP_CONFIDENCE = 20, 0.9
BATCH = 512  # pairs verified at a time
MAX_THREADS = 8


class DuplicatePair(NamedTuple):
    """Two images that are duplicates. `kind`: "near" or "identical"."""

    path: str
    partner: str
    confidence: float
    kind: str


def signature(image: np.ndarray) -> np.ndarray:
    """Grey thumbnail of an image uint8 (H, W, 3) RGB of any size, as uint8 (1600,)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # first: one channel is resized in a third of the time
    return resize(grey, SIDE).ravel()


def phashes(signatures: np.ndarray) -> list[str]:
    """Perceptual hashes of signatures uint8 (N, 1600), 16 hex digits each: which of the 64 lowest frequencies are above
    their median."""
    spectra = whole_spectra(signatures)
    return [bits.tobytes().hex() for bits in np.packbits(spectra > np.median(spectra, axis=1, keepdims=True), axis=1)]


def find_duplicates(
    sha256: Sequence[str], signatures: np.ndarray, progress: Callable[[float], None] = lambda fraction: None
) -> pd.DataFrame:
    """Groups of images that are duplicates of one another. The groups do not depend on the order of the rows.

    `sha256` identifies the content of each file; `signatures` uint8 (N, 1600) are from `signature`. Returns one row per
    image: `group` int64, numbered by first row; `representative` int64, the first row of the group; `kind`: "" for a
    representative, "identical" if the file equals the representative's byte for byte, else "near"; `confidence`
    float32 that the row is a duplicate (1 if identical, NaN for a representative); `partner` int64, the row it matched
    with that confidence (-1 for a representative).

    Time grows with N^1.5 at first and with N^2 above about ten thousand images: a fortieth of all pairs is
    compared and photographs that are alike are verified (python -m benchmarks.duplicates). Up to 8 threads share the
    work. `progress` is called with the fraction that is done.
    """
    content, first, inverse = np.unique(np.asarray(sha256, dtype=str), return_index=True, return_inverse=True)
    pairs, correlation = _near_pairs(signatures[first], progress)
    confidence = 1 / (1 + np.exp((MIN_CORRELATION - correlation) / SLOPE))
    component = _group(len(content), pairs, confidence)

    inside = component[pairs[:, 0]] == component[pairs[:, 1]]
    matches = pd.DataFrame(np.concatenate([pairs[inside], pairs[inside][:, ::-1]]), columns=["file", "partner"])
    matches["confidence"] = np.tile(confidence[inside], 2)
    best = (
        matches.sort_values(["confidence", "partner"], ascending=[False, True])
        .drop_duplicates("file")
        .set_index("file")
        .reindex(range(len(content)))
    )

    rows = np.arange(len(inverse))
    _, first_rows, group = np.unique(component[inverse], return_index=True, return_inverse=True)
    representative = first_rows[group]
    is_first, is_identical = representative == rows, inverse[representative] == inverse
    near_partner = first[best["partner"].fillna(0).to_numpy(np.int64)][inverse]
    near_confidence = best["confidence"].to_numpy(np.float64)[inverse]
    return pd.DataFrame(
        {
            "group": np.unique(representative, return_inverse=True)[1].astype(np.int64),
            "representative": representative.astype(np.int64),
            "kind": np.select([is_first, is_identical], ["", "identical"], "near"),
            "confidence": np.select([is_first, is_identical], [np.nan, 1.0], near_confidence).astype(np.float32),
            "partner": np.select([is_first, is_identical], [-1, representative], near_partner).astype(np.int64),
        }
    )


def identical_files(sha256: np.ndarray) -> pd.DataFrame:
    """As `find_duplicates`, without the column `group`, if only identical files are duplicates."""
    _, first, inverse = np.unique(sha256.astype(str), return_index=True, return_inverse=True)
    representative = first[inverse]
    duplicate = representative != np.arange(len(sha256))
    return pd.DataFrame(
        {
            "representative": representative,
            "kind": np.where(duplicate, "identical", ""),
            "confidence": np.where(duplicate, 1.0, np.nan),
            "partner": np.where(duplicate, representative, -1),
        }
    )


def contact_sheet(
    pairs: Sequence[DuplicatePair], read_image: Callable[[str], np.ndarray], *, columns: int = 3
) -> bytes:
    """A PNG of all `pairs` side by side, with their paths and confidence. `read_image(path)` returns an image uint8 (H,
    W, 3) RGB."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    side, gap, line = 190, 10, 15
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 11)
    width, height = 2 * side + 3 * gap, side + 7 * line + gap
    sheet = Image.new("RGB", (columns * width, max(1, -(-len(pairs) // columns)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        left, top = number % columns * width + gap, number // columns * height + gap
        title = "identical files" if pair.kind == "identical" else f"{pair.kind}, confidence {pair.confidence:.1%}"
        draw.text((left, top), title, "black", font)
        for x, path in zip((left, left + side + gap), (pair.path, pair.partner), strict=True):
            image = ImageOps.contain(Image.fromarray(read_image(path)), (side, side))  # small images are enlarged
            sheet.paste(image, (x, top + line + 3))
            lines = textwrap.wrap(path, 26)
            lines = lines if len(lines) <= 4 else ["…" + lines[-4][1:], *lines[-3:]]
            draw.multiline_text((x, top + side + line + 6), "\n".join(lines), "black", font, spacing=2)
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _near_pairs(signatures: np.ndarray, progress: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """Verified pairs of rows int64 (P, 2), lower row first, and the correlation of their detail float64 (P,)."""
    if len(signatures) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    cells = Cells.cluster(whole_spectra(signatures))
    coarse = shrink(signatures.reshape(-1, SIDE, SIDE), STEPS[0].shrink)

    def verified(start: int) -> pd.DataFrame:
        pairs = candidate_pairs(signatures, start, cells)
        batches = [pairs[first : first + BATCH] for first in range(0, len(pairs), BATCH)]
        correlation = np.concatenate([np.empty(0), *(correlations(signatures, coarse, batch) for batch in batches)])
        table = pd.DataFrame({"a": pairs[:, :2].min(1), "b": pairs[:, :2].max(1), "correlation": correlation})
        return table[correlation > MIN_CORRELATION]

    starts = range(0, len(signatures), TILE)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    # One BLAS thread each: OpenBLAS's own threads would compete with these for the cores.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        tables = []
        for number, table in enumerate(pool.map(verified, starts), 1):
            tables.append(table)
            progress(number / len(starts))
    best = pd.concat(tables).groupby(["a", "b"], as_index=False)["correlation"].max()
    return best[["a", "b"]].to_numpy(np.int64), best["correlation"].to_numpy(np.float64)


def _group(count: int, pairs: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Connected components as int64 (count,): the lowest row of each. Large ones are divided if only pairs of low
    confidence connect them."""
    component = _components(count, pairs)
    large = np.bincount(component, minlength=count)[component] > MAX_GROUP
    return _components(count, pairs[(confidence >= GROUP_CONFIDENCE) | ~large[pairs[:, 0]]])


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of rows 0 to count - 1 as int64 (count,): the lowest row of each."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import coo_array  # imported here: it takes half a second, which would delay Ray's start
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(edges, directed=False)[1]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)

"""Duplicates and near-duplicates: images that show the same up to recompression, resizing, cropping, brightness,
mirroring, rotation, a frame, a caption, margins or perspective.

An image's signature is a small grey thumbnail. `candidates` finds pairs of signatures with similar regions in the same
arrangement, `alignment` checks them by the thumbnails' detail, and `verification` compares the images themselves.
Brightness and contrast cancel out, and colour is ignored. Files with the same sha256 are duplicates in any case. The
constants of these modules were chosen with `python -m benchmarks.duplicates`.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from animalclf.data.resize import resize
from animalclf.duplicates import alignment
from animalclf.duplicates.candidates import CHUNK, MIN_SUPPORT, Placements, chunk_matches, overlap_edges, placements
from animalclf.duplicates.neighbours import build_index
from animalclf.duplicates.phash import phashes
from animalclf.duplicates.regions import SIDE, concatenate, find_regions
from animalclf.duplicates.verification import MIN_CONTENT, Verifier
from animalclf.utils.malloc import keep_freed_memory
from animalclf.utils.row_file import Rows
from animalclf.utils.text import percent

__all__ = ["SIDE", "DuplicatePair", "contact_sheet", "find_duplicates", "identical_files", "phashes", "signature"]

# A pair counts from confidence 0.5, which is at MIN_CONTENT; at SLOPE above it, the confidence is 0.73.
SLOPE = 0.1
# A group of more than MAX_GROUP different files must be connected by pairs of at least GROUP_CONFIDENCE.
MAX_GROUP, GROUP_CONFIDENCE = 20, 0.9
TILE = 1024  # images whose regions one thread finds at a time
BATCH = 512  # pairs aligned at a time
MAX_THREADS = 8

ReadImage = Callable[[int], np.ndarray]  # the image uint8 (H, W, 3) RGB of a row
Progress = Callable[[float], None]  # called with the fraction that is done


class Thumbnails(NamedTuple):
    """Signatures uint8 (M, 1600), of which image n has that in row `rows[n]`, int64 (N,): they are not copied."""

    signatures: Rows
    rows: np.ndarray

    def take(self, images: np.ndarray | slice) -> np.ndarray:
        """uint8 (images, 1600)"""
        return self.signatures[self.rows[images]]


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


def find_duplicates(
    sha256: Sequence[str] | np.ndarray,
    signatures: Rows,
    read_image: ReadImage,
    progress: Progress = lambda fraction: None,
    rows: np.ndarray | None = None,
) -> pd.DataFrame:
    """Groups of images that are duplicates of one another. The groups do not depend on the order of the rows.

    `sha256` identifies the content of each of N files, in ASCII; `signatures` uint8 (N, 1600) are from `signature`, or
    those of the images are its `rows` int64 (N,); `read_image` reads the image of a row, and is called for candidates
    only, from several threads. Returns one row per image: `group` int64, numbered by first row; `representative` int64,
    the first row of the group; `kind`: "" for a representative, "identical" if the file equals the representative's
    byte for byte, else "near"; `confidence` float32 that the row is a duplicate (1 if identical, NaN for a
    representative); `partner` int64, the row it matched with that confidence (-1 for a representative).

    Up to 8 threads share the work.
    """
    first, inverse = np.unique(np.asarray(sha256, dtype=bytes), return_index=True, return_inverse=True)[1:]
    thumbs = Thumbnails(signatures, first if rows is None else rows[first])
    pairs, matching_fraction = _near_pairs(thumbs, lambda row: read_image(int(first[row])), progress)
    confidence = 1 / (1 + np.exp((MIN_CONTENT - matching_fraction) / SLOPE))
    component = _group(len(first), pairs, confidence)

    inside = component[pairs[:, 0]] == component[pairs[:, 1]]
    matches = pd.DataFrame(np.concatenate([pairs[inside], pairs[inside][:, ::-1]]), columns=["file", "partner"])
    matches["confidence"] = np.tile(confidence[inside], 2)
    best = (
        matches.sort_values(["confidence", "partner"], ascending=[False, True])
        .drop_duplicates("file")
        .set_index("file")
        .reindex(range(len(first)))
    )

    _, first_rows, group = np.unique(component[inverse], return_index=True, return_inverse=True)
    representative = first_rows[group]
    is_first, is_identical = representative == np.arange(len(inverse)), inverse[representative] == inverse
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
        title = "identical files" if pair.kind == "identical" else f"{pair.kind}, confidence {percent(pair.confidence)}"
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


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """OpenCV starts no threads of its own in the block. With them, a process that is forked later (by torch's
    DataLoader, for example) would hang in OpenCV."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _near_pairs(thumbs: Thumbnails, read_image: ReadImage, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Verified pairs of rows int64 (P, 2), lower row first, that connect all images of each group, and the fraction of
    their content that matches float64 (P,)."""
    if len(thumbs.rows) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    keep_freed_memory()  # most steps allocate the same large arrays again and again: half of the CPU time
    # One thread of BLAS and OpenCV each: the libraries' own threads would compete with these for the cores.
    with threadpool_limits(1, "blas"), _one_opencv_thread(), ThreadPoolExecutor(threads) as pool:
        table = _candidates(thumbs, pool, progress)
        verifier = Verifier(read_image)
        return _verify(len(thumbs.rows), table, lambda pairs: verifier.contents(pairs, pool), progress)


def _candidates(thumbs: Thumbnails, pool: ThreadPoolExecutor, progress: Progress) -> pd.DataFrame:
    """Pairs to verify, the most similar first: rows `a` < `b`, `mirrored`, and `rank`."""
    count = len(thumbs.rows)
    parts = pool.map(lambda start: find_regions(thumbs.take(slice(start, start + TILE)), start), range(0, count, TILE))
    regions = concatenate(parts, count)
    progress(0.3)
    index = build_index(regions.descriptor, regions.image, pool)
    progress(0.4)
    tables = []
    for number, (a, b) in enumerate(chunk_matches(index, count, pool), 1):
        tables.append(_align(thumbs, placements(regions, a, b), pool))
        progress(0.4 + 0.4 * min(1, number * CHUNK / count))
    table = pd.concat(tables).sort_values(["rank", "a", "b"], ascending=[False, True, True])
    return table.drop_duplicates(["a", "b", "mirrored"], ignore_index=True)


def _align(thumbs: Thumbnails, places: Placements, pool: ThreadPoolExecutor) -> pd.DataFrame:
    """The pairs of `places` that overlap enough, with the columns of `_candidates`. If the support is weak, the
    thumbnails' detail has to correlate."""
    first, second, overlapping = overlap_edges(places)
    places, first, second = places.take(overlapping), first[overlapping], second[overlapping]
    pairs, weak = np.stack([places.first, places.second], 1), np.flatnonzero(places.support < MIN_SUPPORT)

    def correlate(start: int) -> np.ndarray:
        part = weak[start : start + BATCH]
        return alignment.correlations(thumbs.take, pairs[part], places.symmetry[part], first[part], second[part])

    correlation = np.concatenate([np.empty(0), *pool.map(correlate, range(0, len(weak), BATCH))])
    rank = places.support.astype(np.float64)
    rank[weak] += correlation - 1
    table = pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1], "mirrored": places.mirrored(), "rank": rank})
    return table.drop(weak[correlation <= alignment.MIN_CORRELATION])


def _verify(
    count: int,
    table: pd.DataFrame,
    content: Callable[[pd.DataFrame], np.ndarray],
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """As `_near_pairs`. A pair is verified only if its images are not connected yet: in each round, the pairs of
    `table` that would connect all images (a spanning forest), so that a group of K images takes about K comparisons."""
    pairs, matching_fraction = np.empty((0, 2), np.int64), np.empty(0)
    left, total = table, max(1, len(table))
    while len(left):
        component = _components(count, pairs)
        left = left[component[left["a"]] != component[left["b"]]]
        forest = left.loc[_forest(component[left["a"]], component[left["b"]])]
        values = content(forest)
        connects = values > MIN_CONTENT
        pairs = np.concatenate([pairs, forest.loc[connects, ["a", "b"]].to_numpy(np.int64)])
        matching_fraction = np.concatenate([matching_fraction, values[connects]])
        left = left.drop(forest.index)
        progress(1 - 0.2 * len(left) / total)
    return pairs, matching_fraction


def _forest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which edges from `a` to `b` int64 (E,), taken in order, connect what earlier ones do not: bool (E,)."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    connects = []
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        low, high = root(one), root(other)
        parent[low] = high
        connects.append(low != high)
    return np.array(connects, bool)


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

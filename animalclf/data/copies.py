"""Copies and near-copies: which pictures are the same one recompressed, resized, cropped, darkened, mirrored or turned, and how sure that is.

A picture's signature is a small grey thumbnail. Two stages compare them:

1. `_likely`: the low frequencies of parts of one picture against those of another. Of a cosine transform, mirroring only changes signs and turning
   by 90 degrees swaps the axes, so the products of four parity classes give the likeness under all eight symmetries at once.
2. `_verify`: the part that stage 1 chose is moved until it fits best (Gauss-Newton: four edges, gain and offset), and the fine detail of both is
   correlated, without the low frequencies that unrelated pictures have in common.

Brightness and contrast cancel out, and colour is not looked at. Files with the same sha256 are copies whatever they show.
The constants were chosen with `python -m benchmarks.copies`.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd

SIDE = 40  # of the thumbnail, pixels
FREQUENCIES = 8
LIKELY = 0.72  # stage 1: about 1 in 1,000 pictures is as like another by chance; 99 % of the pictures cropped by 10 % a side are more like theirs
EVEN, SLOPE = 0.8, 0.03  # stage 2: correlation of detail at which confidence is 0.5 and a pair counts, and how far above it is 0.73
# Shrink thumbnails by, move the edges so many times, go on where the detail then correlates by more than.
STEPS = ((4, 1, 0.6), (2, 2, 0.7), (1, 3, EVEN))
LARGE, SURE = 20, 0.9  # a group of more different files than LARGE must hold together by pairs of at least this confidence
# Stage 1 multiplies TILE rows by TILES x TILE: they stay in the processor's cache, and OpenBLAS multiplies so small ones without threads of its own,
# which would fight with ours.
TILE, TILES = 128, 16
BATCH = 512  # pairs verified at a time

# Parts of a picture (edges as shares: top, bottom, left, right) by which its cropped copies are known. Edges lie on whole pixels of the thumbnail.
# A crop is recognised when its edges are within about 5 % of one of these.
_EDGES = ((0.075, 0.925), (0.0, 1.0), (0.0, 0.85), (0.15, 1.0))
PARTS = np.array([(*rows, *columns) for rows in _EDGES for columns in _EDGES], np.float32)
WHOLE, MIDDLE = 5, 0  # places in PARTS


def signature(image: np.ndarray) -> np.ndarray:
    """Grey thumbnail of a picture uint8 (H, W, 3) RGB of any size, as uint8 (1600,)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # first: to shrink one channel takes a third of the time
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()


def phashes(signatures: np.ndarray) -> list[str]:
    """Perceptual hashes of signatures uint8 (N, 1600), 16 hex digits each: which of the 64 lowest frequencies lie above their median."""
    spectra = _spectra(signatures, PARTS[WHOLE]).transpose(2, 3, 0, 1, 4).reshape(-1, 64)[: len(signatures)]
    return [np.packbits(spectrum > np.median(spectrum)).tobytes().hex() for spectrum in spectra]


def find_copies(sha256: Sequence[str], signatures: np.ndarray, progress: Callable[[float], None] = lambda share: None) -> pd.DataFrame:
    """Groups of pictures that are copies of one another; any order of the rows gives the same groups.

    `sha256` names the content of each file, `signatures` uint8 (N, 1600) are theirs from `signature`. Returns one row a picture:
    `group` int64, numbered by first row; `representative` int64, first row of the group; `how`: "" for a representative, "identical" where the
    file is the representative's byte for byte, else "near"; `confidence` float32 that the row is a copy (1 identical, NaN for a representative);
    `partner` int64, the row it was compared with for that (-1 for a representative). Takes about (N / 1,000)^2 / 7 seconds of one core,
    shared by up to 8, and 5 KB of memory a picture; `progress` gets the share that is done, now and then.
    """
    content, first, inverse = np.unique(np.asarray(sha256, dtype=str), return_index=True, return_inverse=True)
    pairs, detail = _near_pairs(signatures[first], progress)
    confidence = 1 / (1 + np.exp((EVEN - detail) / SLOPE))
    member = _groups(len(content), pairs, confidence)

    inside = member[pairs[:, 0]] == member[pairs[:, 1]]
    both = pd.DataFrame(np.concatenate([pairs[inside], pairs[inside][:, ::-1]]), columns=["file", "partner"])
    both["confidence"] = np.tile(confidence[inside], 2)
    best = both.sort_values(["confidence", "partner"], ascending=[False, True]).drop_duplicates("file").set_index("file").reindex(range(len(content)))

    rows = np.arange(len(inverse))
    _, representative, group = np.unique(member[inverse], return_index=True, return_inverse=True)
    representative = representative[group]
    own, same = representative == rows, inverse[representative] == inverse
    partner = np.where(same, representative, first[best["partner"].fillna(0).to_numpy(np.int64)][inverse])
    return pd.DataFrame(
        {
            "group": np.unique(representative, return_inverse=True)[1].astype(np.int64),
            "representative": representative.astype(np.int64),
            "how": np.select([own, same], ["", "identical"], "near"),
            "confidence": np.select([own, same], [np.nan, 1.0], best["confidence"].to_numpy(np.float64)[inverse]).astype(np.float32),
            "partner": np.where(own, -1, partner).astype(np.int64),
        }
    )


def contact_sheet(pairs: Sequence[tuple[str, str, float, str]], read: Callable[[str], np.ndarray], *, columns: int = 3) -> bytes:
    """PNG with all `pairs` (path, path, confidence, how) side by side, their names and how sure; `read(path)` gives a picture uint8 (H, W, 3) RGB."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    side, gap, line = 190, 10, 15
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 11)
    width, height = 2 * side + 3 * gap, side + 7 * line + gap
    sheet = Image.new("RGB", (columns * width, max(1, -(-len(pairs) // columns)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (*paths, confidence, how) in enumerate(pairs):
        left, top = number % columns * width + gap, number // columns * height + gap
        draw.text((left, top), f"{how}, {confidence:.1%} sure" if how != "identical" else "identical files", "black", font)
        for x, path in zip((left, left + side + gap), paths, strict=True):
            picture = Image.fromarray(read(path))
            picture.thumbnail((side, side))
            sheet.paste(picture, (x, top + line + 3))
            name = textwrap.wrap(path, 26)
            name = name if len(name) <= 4 else ["…" + name[-4][1:], *name[-3:]]
            draw.multiline_text((x, top + side + line + 6), "\n".join(name), "black", font, spacing=2)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _cosines(low: float, high: float) -> np.ndarray:
    """float32 (FREQUENCIES, SIDE): cosine transform of the part low..high of an axis."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    inside = (place > low) & (place < high)
    return (np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (place - low) / (high - low)) * inside / inside.sum()).astype(np.float32)


def _spectra(signatures: np.ndarray, part: np.ndarray, swap: bool = False) -> np.ndarray:
    """Low frequencies of a part of each picture, axes swapped on request: float32 (2, 2, tiles, TILE, 16) by odd wave down, across, picture, wave.

    They have no mean and length 1 for each picture (less where hardly anything varies, which is like nothing then). The last tile ends in 0.
    """
    wave, half = np.arange(FREQUENCIES), FREQUENCIES // 2
    norm = np.where(wave > 0, np.sqrt(2), 1)
    weight = np.outer(norm, norm) * np.sqrt(np.hypot(wave[:, None], wave))  # pictures have less of the higher waves, which tell more
    down, across = _cosines(*part[:2]), _cosines(*part[2:])
    out = np.zeros((2, 2, -(-len(signatures) // TILE), TILE, half * half), np.float32)
    for tile in range(out.shape[2]):
        thumbs = signatures[tile * TILE : (tile + 1) * TILE].reshape(-1, SIDE, SIDE).astype(np.float32)
        spectra = down @ thumbs @ across.T * weight.astype(np.float32)
        spectra /= np.linalg.norm(spectra, axis=(1, 2), keepdims=True) + 1
        parities = (spectra.swapaxes(1, 2) if swap else spectra).reshape(-1, half, 2, half, 2).transpose(2, 4, 0, 1, 3)
        out[:, :, tile, : len(thumbs)] = parities.reshape(2, 2, -1, half * half)
    return out


def _likely(parts: np.ndarray, wholes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which spectra are like which, mirrored or not: their numbers among parts and among wholes, likeness, flips (2 down + 1 across)."""
    (ee, eo), (oe, oo) = parts[:, :, :, None] @ wholes[:, :, None].swapaxes(4, 5)
    most = np.abs(eo)  # no flip's likeness is above this sum, which takes half the time of all four
    for each in (np.abs(oe), ee, np.abs(oo)):
        most += each
    hit = np.flatnonzero(most > LIKELY)
    part_tile, whole_tile, part, whole = np.unravel_index(hit, most.shape)
    ee, eo, oe, oo = (product.reshape(-1)[hit] for product in (ee, eo, oe, oo))
    same, opposite = ee + oo + np.abs(eo + oe), ee - oo + np.abs(eo - oe)  # both axes flipped or none; one of them
    flips = np.where(same >= opposite, np.where(eo + oe > 0, 0, 3), np.where(eo - oe > 0, 2, 1))
    likeness = np.maximum(same, opposite)
    found = (part_tile * TILE + part, whole_tile * TILE + whole, likeness, flips)
    return tuple(column[likeness > LIKELY] for column in found)


def _near_pairs(signatures: np.ndarray, progress: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """Verified pairs of rows int64 (P, 2), lower row first, and the correlation of their detail float64 (P,)."""
    spectra = [_spectra(signatures, part) for part in PARTS]
    swapped = _spectra(signatures, PARTS[WHOLE], swap=True)
    # Turns by 90 degrees are looked for where a picture is whole or cropped evenly, to halve the time.
    kinds = [(crop, 0, spectra[WHOLE]) for crop in range(len(PARTS))] + [(crop, 4, swapped) for crop in (WHOLE, MIDDLE)]

    def compare(tile: int) -> pd.DataFrame:
        hits = []
        for others in range(tile, spectra[WHOLE].shape[2], TILES):
            for a, b in ((slice(tile, tile + 1), slice(others, others + TILES)), (slice(others, others + TILES), slice(tile, tile + 1))):
                for crop, swap, wholes in kinds:
                    part, whole, likeness, flips = _likely(spectra[crop][:, :, a], wholes[:, :, b])
                    if len(part):
                        hits.append(np.stack([part + a.start * TILE, whole + b.start * TILE, np.full(len(part), crop), swap + flips, likeness], 1))
        found = pd.DataFrame(np.concatenate([np.empty((0, 5)), *hits]), columns=["part", "whole", "crop", "symmetry", "likeness"])
        found = found[found["part"] != found["whole"]].sort_values(["likeness", "crop", "symmetry"], ascending=False)
        hit = found.drop_duplicates(["part", "whole"])[["part", "whole", "crop", "symmetry"]].to_numpy(np.int64)
        detail = np.concatenate([np.empty(0), *(_verify(signatures, hit[first : first + BATCH]) for first in range(0, len(hit), BATCH))])
        return pd.DataFrame({"a": hit[:, :2].min(1), "b": hit[:, :2].max(1), "detail": detail})[detail > EVEN]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        tiles = spectra[WHOLE].shape[2]
        found = []
        for tile, pairs in enumerate(threads.map(compare, range(tiles)), 1):
            found.append(pairs)
            progress(1 - (1 - tile / tiles) ** 2)  # every tile is compared with those after it
    best = pd.concat(found).groupby(["a", "b"], as_index=False)["detail"].max() if found else pd.DataFrame(columns=["a", "b", "detail"])
    return best[["a", "b"]].to_numpy(np.int64), best["detail"].to_numpy(np.float64)


def _verify(signatures: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Correlation (M,) of fine detail for hits int64 (M, 4) of rows part and whole, crop and symmetry; what was seen to be lower than EVEN is 0."""
    part, whole, crop, symmetry = hit.T
    moving, fixed = (signatures[rows].reshape(-1, SIDE, SIDE).astype(np.float32) for rows in (part, whole))
    edges = PARTS[crop]
    swap, down, across = (symmetry & 4) > 0, (symmetry & 2) > 0, (symmetry & 1) > 0
    moving[down], edges[down, :2] = moving[down, ::-1], 1 - edges[down, 1::-1]
    moving[across], edges[across, 2:] = moving[across, :, ::-1], 1 - edges[across, :1:-1]
    moving[swap], edges[swap] = moving[swap].swapaxes(1, 2), edges[swap][:, [2, 3, 0, 1]]

    detail = np.zeros(len(hit))
    left = np.arange(len(hit))
    for shrink, steps, least in STEPS:
        a, b = (_shrunk(thumbs[left], shrink) for thumbs in (moving, fixed))
        for _ in range(steps):
            edges[left] = _moved(a, b, edges[left])
        fit = _correlation(_detail(_cut(a, edges[left])), _detail(b))
        left, fit = left[fit > least], fit[fit > least]
    detail[left] = fit
    return detail


def _shrunk(thumbs: np.ndarray, by: int) -> np.ndarray:
    count, side, _ = thumbs.shape
    return thumbs.reshape(count, side // by, by, side // by, by).mean((2, 4))


def _cut(thumbs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The parts within edges (M, 4) of thumbnails (M, S, S), stretched to the same size with linear interpolation."""
    side = thumbs.shape[1]
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side
    places = (edges[:, ::2, None] + centre * (edges[:, 1::2] - edges[:, ::2])[:, :, None]) * side - 0.5
    weights = np.maximum(0, 1 - np.abs(places.clip(0, side - 1)[..., None] - np.arange(side, dtype=np.float32)))
    return weights[:, 0] @ thumbs @ weights[:, 1].swapaxes(1, 2)


def _moved(moving: np.ndarray, fixed: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Edges after one Gauss-Newton step: least squares of gain, offset and the four edges for `fixed` as the cut of `moving`."""
    count, side, _ = moving.shape
    cut = _cut(moving, edges)
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side
    size = (edges[:, 1::2] - edges[:, ::2])[..., None, None]
    down, across = (slope * side / size[:, axis] for axis, slope in enumerate(np.gradient(cut, axis=(1, 2))))
    terms = [cut, np.ones_like(cut), down * (1 - centre[:, None]), down * centre[:, None], across * (1 - centre), across * centre, fixed]
    slopes = np.stack(terms, 1).reshape(count, len(terms), side * side)
    products = (slopes @ slopes.swapaxes(1, 2)).astype(np.float64)
    normal = products[:, :-1, :-1] * (1 + 1e-4 * np.eye(6)) + 1e-3 * np.eye(6)  # solvable also where a picture does not vary
    solution = np.linalg.solve(normal, products[:, :-1, -1:])[..., 0]
    step = (solution[:, 2:] / solution[:, :1].clip(0.1)).clip(-0.06, 0.06)
    return (edges + step).clip((-0.05, 0.6) * 2, (0.4, 1.05) * 2).astype(np.float32)


def _blur(side: int, sigma: float) -> np.ndarray:
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(side), np.arange(side)) / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails (M, S, S) without both the finest detail, which recompression changes, and the coarse one, which unrelated pictures share."""
    fine, coarse = _blur(thumbs.shape[1], 0.7), _blur(thumbs.shape[1], 1.5)
    smooth = fine @ thumbs @ fine.T
    return (smooth - coarse @ smooth @ coarse.T)[:, 2:-2, 2:-2]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation (M,) of a and b (M, S, S); nearly 0 where there is hardly more than the noise of rounding, about 0.3 grey levels."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
    return (a * b).mean((1, 2)) / np.sqrt(((a * a).mean((1, 2)) + 0.1) * ((b * b).mean((1, 2)) + 0.1))


def _groups(count: int, pairs: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Connected components as int64 (count,): the lowest row of each. Large ones are taken apart where only doubtful pairs hold them together."""
    member = _components(count, pairs)
    large = np.bincount(member, minlength=count)[member] > LARGE
    sure = pairs[(confidence >= SURE) | ~large[pairs[:, 0]]]
    return _components(count, sure)


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for a, b in pairs.tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], np.int64)

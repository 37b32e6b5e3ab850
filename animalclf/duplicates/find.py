"""Duplicates and near-duplicates: which images are the same one recompressed, resized, cropped, darkened, mirrored or turned, and how sure that is.

An image's signature is a small grey thumbnail. Two stages compare them: `likeness` finds, by low frequencies, which parts of images may be the
same; `fit` moves such a part until it fits best, and correlates the fine detail, without the low frequencies that unrelated images have in
common. Brightness and contrast cancel out, and colour is not looked at. Files with the same sha256 are duplicates whatever they show.
The constants of all three modules were chosen with `python -m benchmarks.duplicates`.
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
from threadpoolctl import threadpool_limits

from animalclf.data.decode import resize
from animalclf.duplicates.candidates import SIDE, TILE, Cells, likely, wholes
from animalclf.duplicates.verification import EVEN, STEPS, correlations, shrunk

SLOPE = 0.03  # how far above EVEN, where confidence is 0.5 and a pair counts, it is 0.73
LARGE, SURE = (
    20,
    0.9,
)  # a group of more different files than LARGE must hold together by pairs of at least this confidence
BATCH = 512  # pairs verified at a time


def signature(image: np.ndarray) -> np.ndarray:
    """Grey thumbnail of a picture uint8 (H, W, 3) RGB of any size, as uint8 (1600,)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # first: to shrink one channel takes a third of the time
    return resize(grey, SIDE).ravel()


def phashes(signatures: np.ndarray) -> list[str]:
    """Perceptual hashes of signatures uint8 (N, 1600), 16 hex digits each: which of the 64 lowest frequencies lie above their median."""
    spectra = wholes(signatures)
    return [bits.tobytes().hex() for bits in np.packbits(spectra > np.median(spectra, axis=1, keepdims=True), axis=1)]


def find_duplicates(
    sha256: Sequence[str], signatures: np.ndarray, progress: Callable[[float], None] = lambda share: None
) -> pd.DataFrame:
    """Groups of images that are duplicates of one another; any order of the rows gives the same groups.

    `sha256` names the content of each file, `signatures` uint8 (N, 1600) are theirs from `signature`. Returns one row an image:
    `group` int64, numbered by first row; `representative` int64, first row of the group; `how`: "" for a representative, "identical" where the
    file is the representative's byte for byte, else "near"; `confidence` float32 that the row is a duplicate (1 identical, NaN for a representative);
    `partner` int64, the row it was compared with for that (-1 for a representative). Time grows with N^1.5 at first and with
    N^2 above some ten thousand images: a fortieth of all comparisons, and, of photographs, closer looks at those that are alike
    (python -m benchmarks.duplicates); the work is shared by up to 8 cores.
    `progress` gets the share that is done, now and then.
    """
    content, first, inverse = np.unique(np.asarray(sha256, dtype=str), return_index=True, return_inverse=True)
    pairs, detail = _near_pairs(signatures[first], progress)
    confidence = 1 / (1 + np.exp((EVEN - detail) / SLOPE))
    member = _groups(len(content), pairs, confidence)

    inside = member[pairs[:, 0]] == member[pairs[:, 1]]
    both = pd.DataFrame(np.concatenate([pairs[inside], pairs[inside][:, ::-1]]), columns=["file", "partner"])
    both["confidence"] = np.tile(confidence[inside], 2)
    best = (
        both.sort_values(["confidence", "partner"], ascending=[False, True])
        .drop_duplicates("file")
        .set_index("file")
        .reindex(range(len(content)))
    )

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
            "confidence": np.select(
                [own, same], [np.nan, 1.0], best["confidence"].to_numpy(np.float64)[inverse]
            ).astype(np.float32),
            "partner": np.where(own, -1, partner).astype(np.int64),
        }
    )


def contact_sheet(
    pairs: Sequence[tuple[str, str, float, str]], read: Callable[[str], np.ndarray], *, columns: int = 3
) -> bytes:
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
        draw.text(
            (left, top), f"{how}, {confidence:.1%} sure" if how != "identical" else "identical files", "black", font
        )
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


def _near_pairs(signatures: np.ndarray, progress: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """Verified pairs of rows int64 (P, 2), lower row first, and the correlation of their detail float64 (P,)."""
    if len(signatures) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    cells = Cells.of(wholes(signatures))
    coarse = shrunk(signatures.reshape(-1, SIDE, SIDE), STEPS[0][0])

    def compare(start: int) -> pd.DataFrame:
        hit = likely(signatures, start, cells)
        detail = np.concatenate(
            [
                np.empty(0),
                *(correlations(signatures, coarse, hit[first : first + BATCH]) for first in range(0, len(hit), BATCH)),
            ]
        )
        return pd.DataFrame({"a": hit[:, :2].min(1), "b": hit[:, :2].max(1), "detail": detail})[detail > EVEN]

    starts = range(0, len(signatures), TILE)
    # OpenBLAS's own threads would fight with ours.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        found = []
        for number, pairs in enumerate(threads.map(compare, starts), 1):
            found.append(pairs)
            progress(number / len(starts))
    best = pd.concat(found).groupby(["a", "b"], as_index=False)["detail"].max()
    return best[["a", "b"]].to_numpy(np.int64), best["detail"].to_numpy(np.float64)


def _groups(count: int, pairs: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Connected components as int64 (count,): the lowest row of each. Large ones are taken apart where only doubtful pairs hold them together."""
    member = _components(count, pairs)
    large = np.bincount(member, minlength=count)[member] > LARGE
    sure = pairs[(confidence >= SURE) | ~large[pairs[:, 0]]]
    return _components(count, sure)


def _components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of rows 0 to count - 1 as int64 (count,): the lowest row of each."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import coo_array  # half a second: not while Ray starts
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component = connected_components(edges, directed=False)[1]
    _, first, member = np.unique(component, return_index=True, return_inverse=True)
    return first[member].astype(np.int64)

"""Quality and time of the search for near-duplicates: recall and precision of each kind of change, and pairs of
different images with the same frame, caption, margins or watermark.

    python -m benchmarks.duplicates --data IMAGES [--sample 100] [--weak] [--sheet pairs.png] [--json FILE]
    python -m benchmarks.duplicates                                   the same with 600 drawn images
    python -m benchmarks.duplicates --scale 10000 30000 100000        time and memory of the search in drawn signatures

Modified images, saved as JPEG of quality 90, are searched among all others. A pair is wrong if its images are not of
the same original, or of originals that are themselves a pair. Whether the pairs among the unmodified images are
duplicates is for a person to judge: see the sheet.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from animalclf.duplicates import find
from animalclf.utils.row_file import Rows, zero_rows
from benchmarks import image_changes
from benchmarks.common import argument_parser, write_json

DRAWN = 600  # images without --data
DRAWN_AT_ONCE = 4096  # signatures
DECOY_DESIGNS = 5  # different frames, captions, ...


@dataclass(frozen=True)
class Kind:
    """The search for the images that one change modifies, or for decoys."""

    name: str
    images: int
    """Modified images."""
    recall: float
    """The fraction of them in the group of their original; nan for decoys, whose originals are not searched."""
    right_pairs: int
    wrong_pairs: int


@dataclass(frozen=True)
class Scale:
    """The search among drawn signatures."""

    images: int
    seconds: float
    cpu_seconds: float
    planted: int
    """Mirrored duplicates."""
    near_duplicates: int
    """Found."""
    peak_memory_gib: float


@dataclass(frozen=True)
class Results:
    images: int
    seconds: float
    """Of the search among the unmodified images."""
    pairs: list[find.DuplicatePair]
    """Near-duplicates among them."""
    kinds: list[Kind]
    decoys: list[Kind]
    scale: list[Scale]


@dataclass(frozen=True)
class Originals:
    """Images uint8 (H, W, 3), their signatures uint8 (N, 1600), and their groups int64 (N,)."""

    images: Sequence[np.ndarray]
    signatures: np.ndarray
    group: np.ndarray


def search(images: Sequence[np.ndarray], signatures: np.ndarray) -> pd.DataFrame:
    """`find_duplicates` of different files."""
    sha256 = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(images))]
    return find.find_duplicates(sha256, signatures, lambda row: images[row])


def measure_kinds(originals: Originals, kinds: Sequence[str], sample: int) -> list[Kind]:
    """Modify `sample` originals for each kind, others each time, and search all results among the originals."""
    rng = np.random.default_rng(0)
    sample_rows = _rows_by_kind(originals, len(kinds), sample)
    changed = [
        image_changes.modified(originals.images[row], name, rng)
        for name, rows in zip(kinds, sample_rows, strict=True)
        for row in rows
    ]
    images = [*originals.images, *changed]
    matches = _search_all(images, originals.signatures, changed)
    return _count(kinds, sample_rows, matches, originals.group, len(originals.images))


def measure_decoys(originals: Originals, sample: int) -> list[Kind]:
    """Put the same DECOY_DESIGNS frames (captions, ...) on `sample` originals for each kind, others each time, and
    search the results without their originals among the others."""
    kinds = list(image_changes.DECOYS)
    sample_rows = _rows_by_kind(originals, len(kinds), sample)
    changed = [
        image
        for name, rows in zip(kinds, sample_rows, strict=True)
        for seed, part in enumerate(np.array_split(rows, DECOY_DESIGNS))
        for image in image_changes.decoys([originals.images[row] for row in part], name, seed)
    ]
    others = np.setdiff1d(np.arange(len(originals.images)), sample_rows)
    images = [*(originals.images[row] for row in others), *changed]
    matches = _search_all(images, originals.signatures[others], changed)
    rows = _count(kinds, sample_rows, matches, originals.group, len(others), originals.group[others])
    return [replace(row, recall=float("nan")) for row in rows]


def _rows_by_kind(originals: Originals, kinds: int, sample: int) -> np.ndarray:
    """Different rows of `originals` for each kind, int64 (kinds, sample), or as many as there are."""
    sample = min(sample, len(originals.images) // kinds)
    return np.random.default_rng(0).permutation(len(originals.images))[: kinds * sample].reshape(kinds, sample)


def _search_all(images: list[np.ndarray], signatures: np.ndarray, changed: list[np.ndarray]) -> pd.DataFrame:
    """`search` in images of `signatures`, followed by `changed`."""
    return search(images, np.concatenate([signatures, np.stack([find.signature(image) for image in changed])]))


def _count(
    kinds: Sequence[str],
    sample_rows: np.ndarray,
    matches: pd.DataFrame,
    groups: np.ndarray,
    count: int,
    searched: np.ndarray | None = None,
) -> list[Kind]:
    """Recall and pairs of each kind, whose modified originals `chosen` follow after `count` images. `groups`: of all
    originals, `searched`: of those among the `count`."""
    source = np.concatenate([groups if searched is None else searched, groups[sample_rows.ravel()]])
    group, partner = matches["group"].to_numpy(), matches["partner"].to_numpy()
    near = np.flatnonzero(matches["kind"] == "near")
    first, other = np.maximum(near, partner[near]), np.minimum(near, partner[near])
    right = source[first] == source[other]
    results = []
    for number, (name, rows) in enumerate(zip(kinds, sample_rows, strict=True)):
        own = np.arange(len(rows)) + count + number * len(rows)
        of_kind = np.isin(first, own) | np.isin(other, own)
        hit = group[own] == group[rows] if searched is None else np.zeros(len(rows))
        wrong = int((of_kind & ~right).sum())
        results.append(Kind(name, len(rows), float(hit.mean()), int(of_kind.sum()) - wrong, wrong))
    return results


def textures(count: int) -> Rows:
    """Signatures uint8 (count, 1600) of drawn textures, of which the last 5 % are the first ones mirrored."""
    rng, side, planted = np.random.default_rng(0), find.SIDE, count // 20
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)).clip(0.5 / side) ** 1.2
    signatures, originals = zero_rows(count, side**2), np.arange(count - planted)

    def texture() -> np.ndarray:
        values = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency)
        return image_changes.gain((values - values.mean()) / values.std(), 45, 128).ravel()

    for rows in np.split(originals, range(DRAWN_AT_ONCE, len(originals), DRAWN_AT_ONCE)):
        signatures[rows] = np.stack([texture() for _ in rows])
    for rows in np.split(originals[:planted], range(DRAWN_AT_ONCE, planted, DRAWN_AT_ONCE)):
        mirrored = signatures[rows].reshape(-1, side, side)[:, :, ::-1]
        signatures[rows + len(originals)] = mirrored.reshape(-1, side**2)
    return signatures


def grey_image(signatures: Rows, row: int) -> np.ndarray:
    """The thumbnail of a row as an image uint8 (SIDE, SIDE, 3)."""
    thumbnail = signatures[np.array([row])].reshape(find.SIDE, find.SIDE)
    return cv2.cvtColor(thumbnail, cv2.COLOR_GRAY2RGB)


def measure_scale(count: int) -> Scale:
    """Time and memory for `count` drawn textures."""
    signatures = textures(count)
    start, start_cpu = time.perf_counter(), time.process_time()
    sha256 = [str(row) for row in range(count)]
    matches = find.find_duplicates(sha256, signatures, lambda row: grey_image(signatures, row))
    return Scale(
        images=count,
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - start_cpu,
        planted=count // 20,
        near_duplicates=int((matches["kind"] == "near").sum()),
        peak_memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", help="folder of images, with or without subfolders")
    parser.add_argument("--sample", type=int, default=100, help="images to modify in each way")
    parser.add_argument(
        "--weak", action="store_true", help="also weak changes: cropped by 10 %%, rotated by 90 degrees"
    )
    parser.add_argument("--kinds", nargs="*", help="only these changes")
    parser.add_argument("--scale", type=int, nargs="*", help="only time the search in these numbers of signatures")
    parser.add_argument("--sheet", help="write the pairs among the unmodified images as a PNG")
    arguments = parser.parse_args()
    if arguments.scale:
        results = Results(0, 0, [], [], [], [measure_scale(count) for count in arguments.scale])
    else:
        names, images = read_images(arguments.data) if arguments.data else draw_images(DRAWN)
        kinds = arguments.kinds or [*image_changes.STRONG, *(image_changes.WEAK if arguments.weak else ())]
        results = measure(names, images, arguments.sample, kinds)
        if arguments.sheet:
            sheet = find.contact_sheet(results.pairs, lambda name: images[names.index(name)])
            Path(arguments.sheet).write_bytes(sheet)
    show(results)
    write_json(arguments.json, results)


def read_images(folder: str) -> tuple[list[str], list[np.ndarray]]:
    """Paths of the image files below `folder`, and the images uint8 (H, W, 3)."""
    names = sorted(
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, files in os.walk(folder) for name in files
    )
    names = [name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))]
    return names, [
        cv2.cvtColor(np.asarray(cv2.imread(os.path.join(folder, name))), cv2.COLOR_BGR2RGB) for name in names
    ]


def draw_images(count: int) -> tuple[list[str], list[np.ndarray]]:
    return [f"drawn {seed}" for seed in range(count)], [image_changes.drawn(seed) for seed in range(count)]


def measure(names: list[str], images: list[np.ndarray], sample: int, kinds: Sequence[str]) -> Results:
    signatures = np.stack([find.signature(image) for image in images])
    started = time.perf_counter()
    matches = search(images, signatures)
    seconds = time.perf_counter() - started
    rows = matches.loc[matches["kind"] != "", ["partner", "confidence", "kind"]].itertuples()
    originals = Originals(images, signatures, matches["group"].to_numpy())
    return Results(
        images=len(names),
        seconds=seconds,
        pairs=[
            find.DuplicatePair(names[row], names[partner], float(confidence), kind)
            for row, partner, confidence, kind in rows
        ],
        kinds=measure_kinds(originals, kinds, sample),
        decoys=measure_decoys(originals, sample),
        scale=[],
    )


def show(results: Results) -> None:
    console = Console(width=110)
    if results.kinds:
        table = Table(title=f"near-duplicates among {results.images:,} images", title_justify="left")
        for heading in ("", "images", "recall", "pairs", "wrong", "precision"):
            table.add_column(heading, justify="right" if heading else "left")
        for kind in results.kinds:
            table.add_row(kind.name, *_cells(kind))
        for kind in results.decoys:
            table.add_row(f"different images, same {kind.name}", *_cells(kind))
        right, wrong = (sum(getattr(kind, name) for kind in results.kinds) for name in ("right_pairs", "wrong_pairs"))
        recall = np.mean([kind.recall for kind in results.kinds])
        table.add_row(
            "all changes", "", f"{recall:.3f}", f"{right + wrong}", f"{wrong}", f"{right / max(1, right + wrong):.3f}"
        )
        console.print(table)
        console.print(f"{len(results.pairs)} pairs among the unmodified images, in {results.seconds:.2f} s")
        for pair in results.pairs:
            console.print(f"  {pair.kind} {pair.confidence:.3f}  {pair.path}  {pair.partner}", markup=False)
    for scale in results.scale:
        console.print(scale, markup=False)
    if len(results.scale) > 1:
        size, seconds = (
            np.log([getattr(scale, name) for scale in results.scale]) for name in ("images", "cpu_seconds")
        )
        console.print(f"CPU time grows with the number of images to the power of {np.polyfit(size, seconds, 1)[0]:.2f}")


def _cells(kind: Kind) -> list[str]:
    pairs = kind.right_pairs + kind.wrong_pairs
    recall = "" if np.isnan(kind.recall) else f"{kind.recall:.3f}"
    precision = f"{kind.right_pairs / pairs:.3f}" if pairs else ""
    return [f"{kind.images}", recall, f"{pairs}", f"{kind.wrong_pairs}", precision]


if __name__ == "__main__":
    main()

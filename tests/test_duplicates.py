"""Duplicates: each change is found, different images are not, and the result depends on content only."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from animalclf.duplicates import candidates, find, neighbours, regions, verification
from benchmarks.image_changes import DECOYS, STRONG, WEAK, decoys, drawn, gain, modified

HARD = ("margins", "crop to 80 %, margins, dark")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [drawn(seed, 150, 200) for seed in range(40)]


def names(count: int) -> list[str]:
    """Substitutes for the sha256 of `count` different files."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def search(images: Sequence[np.ndarray], sha256: list[str] | None = None) -> pd.DataFrame:
    signatures = np.stack([find.signature(image) for image in images])
    return find.find_duplicates(sha256 or names(len(images)), signatures, lambda row: images[row])


def test_modified_images_are_found(images: list[np.ndarray]) -> None:
    """Three images in every change, of which the hard ones may be missed in part."""
    rng, changes = np.random.default_rng(0), [*WEAK, *STRONG]
    changed = [modified(image, change, rng) for change in changes for image in images[:3]]
    matches = search([*images[:20], *changed])
    source = np.concatenate([np.arange(20), np.tile(np.arange(3), len(changes))])
    hit = (matches["group"] == matches["group"].to_numpy()[source])[20:].to_numpy().reshape(-1, 3)
    missed = {change: hits.mean() for change, hits in zip(changes, hit, strict=True) if change not in HARD}
    assert all(recall >= 0.6 for recall in missed.values()), missed
    assert hit.mean() >= 0.96
    near = matches[matches["kind"] == "near"]
    assert near["confidence"].between(0.5, 1).all()
    assert (source[near["partner"]] == source[near.index]).all()
    for _, rows in matches.groupby("group"):
        assert len(set(source[rows.index])) == 1  # nothing else was grouped


@pytest.mark.parametrize("kind", DECOYS)
def test_a_common_border_or_watermark_groups_no_images(kind: str, images: list[np.ndarray]) -> None:
    matches = search(decoys(images[:20], kind, seed=0))
    assert (matches["kind"] == "").all()


@pytest.mark.parametrize("kind", DECOYS)
def test_only_the_content_of_images_with_the_same_border_counts(kind: str, images: list[np.ndarray]) -> None:
    """Verification alone: the border matches exactly, so a homography is always found."""
    first, second = (verification.features(image) for image in decoys(images[:2], kind, seed=0))
    assert verification.matching_content(first, second) < verification.MIN_CONTENT / 2
    assert verification.matching_content(first, first) > 0.95


def test_unrelated_images_are_not_grouped(images: list[np.ndarray]) -> None:
    matches = search(images)
    assert (matches["group"] == np.arange(40)).all()
    assert (matches["representative"] == np.arange(40)).all()
    assert (matches["kind"] == "").all()
    assert matches["confidence"].isna().all()
    assert (matches["partner"] == -1).all()


def test_identical_files_are_duplicates_in_any_case(images: list[np.ndarray]) -> None:
    flat = np.full((40, 40, 3), 255, np.uint8)
    matches = search([images[0], flat, images[0], images[1], flat], ["a", "b", "a", "c", "b"])
    assert matches["group"].tolist() == [0, 1, 0, 2, 1]
    assert matches["kind"].tolist() == ["", "", "identical", "", "identical"]
    assert matches["confidence"].tolist()[2::2] == [1.0, 1.0]
    assert matches["partner"].tolist() == [-1, -1, 0, -1, 1]


def test_almost_uniform_images_are_not_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(100, 140, 90)[:, None, None] * np.ones((90, 120, 3))
    plain = [np.full((90, 120, 3), 30 * level) for level in range(9)] + [ramp, ramp + 20, ramp[::-1], 2 * ramp - 50]
    noisy = [image + rng.normal(0, 2, image.shape) for image in plain]
    assert (search([gain(image, 1) for image in plain + noisy])["kind"] == "").all()


def test_any_order_of_rows_gives_the_same_groups(images: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    changed = [modified(image, change, rng) for image, change in zip(images[:8], STRONG, strict=False)]
    everything, sha256 = [*images[:10], *changed], np.array(names(10 + len(changed)))
    matches = search(everything, sha256.tolist())
    assert matches.equals(search(everything, sha256.tolist()))

    order = rng.permutation(len(sha256))
    shuffled = search([everything[row] for row in order], sha256[order].tolist())
    sets, shuffled_sets = (
        {frozenset(rows) for rows in frame.groupby("group").groups.values()}
        for frame in (matches, shuffled.set_index(order))
    )
    assert sets == shuffled_sets
    assert (
        shuffled["representative"] == shuffled.groupby("group")["group"].transform(lambda rows: rows.index.min())
    ).all()


FORK_AFTER_SEARCH = """
import os, signal
import cv2, numpy as np
from animalclf.duplicates import find
from benchmarks.image_changes import drawn
images = [drawn(seed // 2, 300, 400)[: 300 - seed % 2] for seed in range(8)]
signatures = np.stack([find.signature(image) for image in images])
found = find.find_duplicates(list("abcdefgh"), signatures, images.__getitem__)
assert found["group"].nunique() == 4, "images were compared"
child = os.fork()
if not child:
    signal.alarm(20)
    cv2.setNumThreads(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "a forked process hangs in OpenCV"
"""


def test_a_process_that_is_forked_after_a_search_can_use_opencv() -> None:
    subprocess.run([sys.executable, "-c", FORK_AFTER_SEARCH], check=True, cwd=Path(__file__).parent.parent)


def test_no_image_and_one_image(images: list[np.ndarray]) -> None:
    none = find.find_duplicates([], np.empty((0, find.SIDE**2), np.uint8), lambda row: images[row])
    assert none.empty
    assert search(images[:1])["group"].tolist() == [0]


def test_cells_find_what_an_exhaustive_comparison_finds(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3000, 36)).astype(np.float32)
    vectors[1500:] = vectors[:1500] + 0.35 * generator.normal(size=(1500, 36))
    vectors = (regions.SCALE * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).round().astype(np.int8)
    owner = np.arange(3000, dtype=np.int32) // 2

    def pairs(size: int = 3000) -> set[tuple[int, int]]:
        """Of queries in parts of `size` vectors."""
        with ThreadPoolExecutor(1) as pool:
            index = neighbours.build_index(vectors, owner, pool)
            parts = [neighbours.neighbours(index, range(at, at + size), 0.8, pool) for at in range(0, 3000, size)]
        rows, others = (np.concatenate(part).astype(np.int64) for part in zip(*parts, strict=True))
        similarity = (vectors[rows].astype(np.float64) * vectors[others]).sum(1) / regions.SCALE**2
        assert (similarity > 0.8).all() and (owner[rows] != owner[others]).all()
        return set(zip(rows.tolist(), others.tolist(), strict=True))

    exact = pairs()
    monkeypatch.setattr(neighbours, "MAX_EXHAUSTIVE", 0)
    assert len(exact) > 2900
    assert len(exact & pairs()) > 0.8 * len(exact)
    assert pairs() == pairs(size=100)
    monkeypatch.setattr(neighbours, "MAX_CELL", 50)  # 60 cells in 8 branches
    assert len(exact & pairs()) > 0.75 * len(exact)
    assert pairs() == pairs(size=100)


def test_all_matches_of_two_images_come_in_one_chunk(images: list[np.ndarray], monkeypatch) -> None:
    rng = np.random.default_rng(0)
    changed = [modified(image, "crop to 80 %", rng) for image in images[:12]]
    found = regions.find_regions(np.stack([find.signature(image) for image in [*images[:12], *changed]]))

    def chunks() -> list[set[tuple[int, int]]]:
        with ThreadPoolExecutor(1) as pool:
            index = neighbours.build_index(found.descriptor, found.image, pool)
            parts = list(candidates.chunk_matches(index, 24, pool))
        return [set(zip(a.tolist(), b.tolist(), strict=True)) for a, b in parts]

    (at_once,) = chunks()
    monkeypatch.setattr(candidates, "CHUNK", 5)
    monkeypatch.setattr(candidates, "SEARCH", 10)
    parts = chunks()
    assert set.union(*parts) == at_once
    assert [{int(found.image[min(match)]) // 5 for match in part} for part in parts] == [{4}, {3}, {2}, {1}, {0}]


def test_matches_that_are_alone_in_their_pair_of_images_are_dropped() -> None:
    generator = np.random.default_rng(0)
    image = np.sort(generator.integers(0, 12, 60)).astype(np.int32)
    a, b = generator.integers(0, 60, (2, 150)).astype(np.int32)
    a, b = a[image[a] != image[b]], b[image[a] != image[b]]
    different = {tuple(sorted(pair)) for pair in zip(a.tolist(), b.tolist(), strict=True)}
    images = Counter((image[one], image[other]) for one, other in different)
    expected = {(one, other) for one, other in different if images[image[one], image[other]] > 1}
    for first, second in ((a, b), (np.append(a, b), np.append(b, a))):
        found = candidates._drop_single_matches(image, first, second)
        assert len(expected) == len(found[0]) < len(different)
        assert set(zip(*(rows.tolist() for rows in found), strict=True)) == expected


def test_placements_need_two_different_matches() -> None:
    """Among random matches of 600 images, two that agree count; two regions that match in both directions do not."""
    generator = np.random.default_rng(0)
    count, places = 3000, np.full(3000, 0.5, np.float32)
    rows = np.arange(count)
    scattered = regions.Regions(
        (rows // 5).astype(np.int32),
        np.where(rows % 5 == 1, 0.6, places).astype(np.float32),
        places,
        (0.1 + 0.02 * (rows % 5)).astype(np.float32),
        np.zeros(count, np.uint8),
        np.zeros((count, regions.DIMENSIONS), np.int8),
    )
    a, b = generator.integers(0, count, (2, 20_000))
    several = (a // 5 != b // 5) & (np.minimum(a, b) >= 10)
    a, b = np.concatenate([a[several], [0, 1, 1005]]), np.concatenate([b[several], [1000, 1001, 5]])
    a, b = np.concatenate([a, [b[-1]]]), np.concatenate([b, [a[-1]]])
    found = candidates.placements(scattered, a, b)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert (0, 200) in pairs and (1, 201) not in pairs
    assert (found.support >= 2).all() and len(pairs) < 600


def test_a_large_set_of_similar_images_is_one_group_and_few_are_read() -> None:
    """As of a fixed camera: every region is like those of all others."""
    rng, scene = np.random.default_rng(0), drawn(0, 60, 80)
    images = [np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    signatures, reads = np.stack([find.signature(image) for image in images]), []

    def read(row: int) -> np.ndarray:
        reads.append(row)
        return images[row]

    assert (find.find_duplicates(names(40), signatures, read)["group"] == 0).all()
    assert len(reads) < 2 * 40


def test_regions_of_a_mirrored_image_are_placed_onto_it(images: list[np.ndarray]) -> None:
    """A symmetry, and a match, give the place of one image in another."""
    upright = find.signature(images[0]).reshape(40, 40)
    views = [upright, upright[:, ::-1], upright[::-1], np.rot90(upright), upright[::-1].T]
    signatures = np.stack([np.ascontiguousarray(view).reshape(-1) for view in views])
    found = regions.find_regions(signatures)
    with ThreadPoolExecutor(1) as pool:
        index = neighbours.build_index(found.descriptor, found.image, pool)
        a, b = neighbours.neighbours(index, range(len(found.image)), 0.9, pool)
    places = candidates.placements(found, a, b)
    best = places.take(np.flatnonzero((places.first == 0) & (places.support >= 6)))
    assert sorted(best.second) == [1, 2, 3, 4]
    assert np.allclose([best.x, best.y], 0.5, atol=0.02) and np.allclose(best.scale, 1, atol=0.02)
    assert best.mirrored().tolist() == [{1: True, 2: True, 3: False, 4: False}[row] for row in best.second]


@pytest.mark.parametrize(("side", "sigma"), [(regions.SIDE, regions.SIGMAS[0]), (40, 2), (40, 0.7), (20, 0.7)])
def test_products_of_blur_weights_are_no_subnormal_numbers(side: int, sigma: float) -> None:
    """They would take Intel's processors a hundred times as long."""
    weights = regions.blur_matrix(side, sigma)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert weights[weights > 0].min() ** 2 >= np.finfo(np.float32).smallest_normal


def test_features_of_the_mirrored_image(images: list[np.ndarray]) -> None:
    """`mirror` gives what the detector finds in the mirrored image."""
    changed = verification.features(np.ascontiguousarray(images[0][:, ::-1]))
    assert verification.matching_content(verification.mirror(verification.features(images[0])), changed) > 0.9
    assert verification.matching_content(verification.features(images[0]), changed) == 0


def test_a_chain_of_pairs_of_low_confidence_is_not_one_large_group() -> None:
    chain = np.stack([np.arange(60), np.arange(1, 61)], 1)
    confidence = np.full(60, 0.6)
    confidence[:5] = 0.99
    assert find._group(61, chain, confidence).tolist() == [0] * 6 + list(range(6, 61))
    assert find._group(61, chain[:10], confidence[:10])[:11].tolist() == [0] * 11  # a small group is not divided
    assert (find._group(61, chain, np.full(60, 0.99)) == 0).all()  # nor a large one of confident pairs


def test_signature_of_any_size_and_hash(images: list[np.ndarray]) -> None:
    image = images[1]
    for height, width in ((1, 1), (7, 900), (3000, 2000)):
        resized = cv2.resize(image, (width, height))
        assert find.signature(resized).shape == (1600,)
        verification.features(resized)
    hashes = find.phashes(np.stack([find.signature(view) for view in (image, gain(image, 0.6), images[2])]))
    distance = [bin(int(hashes[0], 16) ^ int(digits, 16)).count("1") for digits in hashes]
    assert [len(digits) for digits in hashes] == [16] * 3
    assert distance[1] <= 4 and distance[2] >= 12


def test_contact_sheet_shows_every_pair() -> None:
    paths = []

    def read_image(path: str) -> np.ndarray:
        paths.append(path)
        return np.full((60, 90, 3), (255, 0, 0), np.uint8)

    long = "cat/" + "long name " * 20 + "ü.jpg"
    pairs = [find.DuplicatePair(f"cat/a{number}.jpg", long, 0.9, "near") for number in range(4)]
    sheet = np.asarray(Image.open(io.BytesIO(find.contact_sheet(pairs, read_image))))
    assert paths == [path for pair in pairs for path in pair[:2]]
    assert (sheet == (255, 0, 0)).all(2).sum() == 8 * 190 * 127  # enlarged
    assert Image.open(io.BytesIO(find.contact_sheet([], read_image))).format == "PNG"


@pytest.mark.sample
def test_real_photographs(sample_data: str) -> None:
    paths = sorted(glob.glob(os.path.join(sample_data, "species20", "*", "*")))[::6]
    images = [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in paths]
    assert len(images) == 170
    chosen = np.random.default_rng(0).permutation(len(images))[:60]
    min_recall = {"mirror": 0.95, "frame": 0.9, "caption": 0.9, "print": 0.7, "crop to 70 %": 0.75}
    rng = np.random.default_rng(0)
    changed = [modified(images[row], change, rng) for change, row in zip(list(min_recall) * 12, chosen, strict=True)]
    framed = decoys([images[row] for row in range(0, 170, 4)], "frame", seed=0)
    groups = search([*images, *changed, *framed])["group"].to_numpy()
    hit = (groups[170:230] == groups[chosen]).reshape(12, -1).mean(0)
    assert (hit >= list(min_recall.values())).all(), dict(zip(min_recall, hit, strict=True))
    assert len(np.unique(groups[:170])) >= 169  # modified and framed images connect no other images

"""Copies: each modification is found, pictures that differ are not, and the result depends on content alone."""

from __future__ import annotations

import glob
import hashlib
import io
import os

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from animalclf.duplicates import candidates, find
from benchmarks.duplicates import CHANGES, gain, modified


def texture(seed: int, height: int = 150, width: int = 200) -> np.ndarray:
    """A picture uint8 (H, W, 3) with structure of every size, as photographs have."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).clip(1 / width)[..., None]
    noise = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1)) / frequency**1.3, s=(height, width), axes=(0, 1)
    )
    return gain((noise - noise.mean()) / noise.std(), 40, 120)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [texture(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def signatures(pictures: list[np.ndarray]) -> np.ndarray:
    return np.stack([find.signature(picture) for picture in pictures])


def names(count: int) -> list[str]:
    """Stand-ins for the sha256 of `count` different files."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


@pytest.mark.parametrize("change", CHANGES)
def test_modified_pictures_are_found(change: str, pictures: list[np.ndarray], signatures: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    changed = np.stack([find.signature(modified(picture, change, rng)) for picture in pictures[:20]])
    found = find.find_duplicates(names(60), np.concatenate([signatures, changed]))
    hit = found["representative"].to_numpy()[40:] == np.arange(20)
    assert hit.mean() >= 0.9
    assert (found["how"][40:][hit] == "near").all()
    assert found["confidence"][40:][hit].between(0.5, 1).all()
    assert (found["partner"][40:][hit] == np.arange(20)[hit]).all()
    assert found["group"].nunique() == 60 - hit.sum()  # nothing else was grouped


def test_unrelated_pictures_stay_alone(signatures: np.ndarray) -> None:
    found = find.find_duplicates(names(40), signatures)
    assert (found["group"] == np.arange(40)).all()
    assert (found["representative"] == np.arange(40)).all()
    assert (found["how"] == "").all()
    assert found["confidence"].isna().all()
    assert (found["partner"] == -1).all()


def test_identical_files_are_copies_whatever_they_show(signatures: np.ndarray) -> None:
    flat = np.full((1, find.SIDE**2), 255, np.uint8)
    found = find.find_duplicates(
        ["a", "b", "a", "c", "b"], np.concatenate([signatures[:1], flat, signatures[:1], signatures[1:2], flat])
    )
    assert found["group"].tolist() == [0, 1, 0, 2, 1]
    assert found["how"].tolist() == ["", "", "identical", "", "identical"]
    assert found["confidence"].tolist()[2::2] == [1.0, 1.0]
    assert found["partner"].tolist() == [-1, -1, 0, -1, 1]


def test_pictures_that_show_hardly_anything_are_not_near() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(100, 140, 90)[:, None, None] * np.ones((90, 120, 3))
    plain = [np.full((90, 120, 3), 30 * level) for level in range(9)] + [ramp, ramp + 20, ramp[::-1], 2 * ramp - 50]
    noisy = [image + rng.normal(0, 2, image.shape) for image in plain]
    signatures = np.stack([find.signature(gain(image, 1)) for image in plain + noisy])
    assert (find.find_duplicates(names(len(signatures)), signatures)["how"] == "").all()


def test_any_order_of_rows_gives_the_same_groups(pictures: list[np.ndarray], signatures: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    changed = [
        find.signature(modified(picture, change, rng))
        for picture, change in zip(pictures, list(CHANGES) * 2, strict=False)
    ]
    everything, sha256 = np.concatenate([signatures, changed]), np.array(names(40 + len(changed)))
    found = find.find_duplicates(sha256.tolist(), everything)
    assert found.equals(find.find_duplicates(sha256.tolist(), everything))

    order = rng.permutation(len(sha256))
    shuffled = find.find_duplicates(sha256[order].tolist(), everything[order])
    sets, shuffled_sets = (
        {frozenset(rows) for rows in frame.groupby("group").groups.values()}
        for frame in (found, shuffled.set_index(order))
    )
    assert sets == shuffled_sets
    assert (
        shuffled["representative"] == shuffled.groupby("group")["group"].transform(lambda rows: rows.index.min())
    ).all()


def test_no_pictures_and_one_picture(signatures: np.ndarray) -> None:
    assert find.find_duplicates([], signatures[:0]).empty
    assert find.find_duplicates(["a"], signatures[:1])["group"].tolist() == [0]


def test_a_large_set_is_sorted_into_cells_and_loses_nothing(monkeypatch) -> None:
    """1,500 pictures, of which 100 again, mirrored or without 10 % of their width: in cells as when all are compared with all."""
    rng = np.random.default_rng(0)
    count = 2 * candidates.TILE + 476
    pictures = [texture(seed, 40, 40) for seed in range(count)]
    chosen = rng.permutation(count)[:100]
    changed = [pictures[row][:, ::-1] if number % 2 else pictures[row][:, 4:] for number, row in enumerate(chosen)]
    signatures = np.stack([find.signature(np.ascontiguousarray(picture)) for picture in [*pictures, *changed]])
    exact = find.find_duplicates(names(count + 100), signatures)
    monkeypatch.setattr(candidates, "EXACT", 0)
    wholes = candidates.wholes(signatures)
    cells = candidates.Cells.of(wholes)
    assert len(cells.centres) == 4 * 40 and np.diff(cells.edges).sum() == count + 100
    assert 0 < len(cells.probed(wholes)[0]) < 0.1 * len(wholes) * len(cells.centres)  # few cells are looked through
    found = find.find_duplicates(names(count + 100), signatures)
    pd.testing.assert_frame_equal(found, exact)  # confidence but for rounding, as pairs are looked at in another order
    assert (found["representative"][count:] == chosen).mean() > 0.95 and (found["how"][:count] == "").all()


def test_a_large_set_of_pictures_that_are_all_alike(monkeypatch) -> None:
    """As of a camera that does not move: no cell of the large set is more like a picture than the others, and its copies are found all the same."""
    rng, scene = np.random.default_rng(0), texture(0, 40, 40)
    pictures = [np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8) for _ in range(150)]
    signatures = np.stack([find.signature(picture) for picture in pictures])
    monkeypatch.setattr(candidates, "EXACT", 0)
    assert (find.find_duplicates(names(150), signatures)["group"] == 0).all()


def test_a_chain_of_doubtful_pairs_does_not_make_one_large_group() -> None:
    chain = np.stack([np.arange(60), np.arange(1, 61)], 1)
    doubtful = np.full(60, 0.6)
    doubtful[:5] = 0.99
    assert find._groups(61, chain, doubtful).tolist() == [0] * 6 + list(range(6, 61))
    assert find._groups(61, chain[:10], doubtful[:10])[:11].tolist() == [0] * 11  # a small one stays
    assert (find._groups(61, chain, np.full(60, 0.99)) == 0).all()  # so does a large one of sure pairs


def test_signature_of_any_size_and_hash() -> None:
    image = texture(1)
    for height, width in ((1, 1), (7, 900), (3000, 2000)):
        assert find.signature(cv2.resize(image, (width, height))).shape == (1600,)
    hashes = find.phashes(np.stack([find.signature(picture) for picture in (image, gain(image, 0.6), texture(2))]))
    distance = [bin(int(hashes[0], 16) ^ int(other, 16)).count("1") for other in hashes]
    assert [len(digits) for digits in hashes] == [16] * 3
    assert distance[1] <= 4 and distance[2] >= 12


def test_contact_sheet_shows_every_pair() -> None:
    asked = []

    def read(path: str) -> np.ndarray:
        asked.append(path)
        return np.full((60, 90, 3), (255, 0, 0), np.uint8)

    pairs = [(f"cat/a{number}.jpg", "cat/" + "long name " * 20 + "ü.jpg", 0.9, "near") for number in range(4)]
    sheet = np.asarray(Image.open(io.BytesIO(find.contact_sheet(pairs, read))))
    assert asked == [path for pair in pairs for path in pair[:2]]
    assert (sheet == (255, 0, 0)).all(2).sum() == 8 * 60 * 90
    assert Image.open(io.BytesIO(find.contact_sheet([], read))).format == "PNG"


@pytest.mark.sample
def test_real_pictures(sample_data: str) -> None:
    """All flagged pairs of species20 were looked at: 6, each two shots or versions of one motif. More would be false alarms."""
    paths = sorted(glob.glob(os.path.join(sample_data, "species20", "*", "*")))
    images = [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in paths]
    signatures = np.stack([find.signature(image) for image in images])
    found = find.find_duplicates(names(len(paths)), signatures)
    assert len(paths) == 1020
    assert 5 <= (found["how"] == "near").sum() <= 8

    rng = np.random.default_rng(0)
    least = {
        "mirror": 0.98,
        "crop 10 % a side, off centre": 0.92,
        "mirror, darken x 0.6": 0.97,
        "brightness x 1.4": 0.95,
    }
    chosen = rng.permutation(len(paths))[:120]
    changed = [find.signature(modified(images[row], change, rng)) for change in least for row in chosen]
    groups = find.find_duplicates(names(len(paths) + len(changed)), np.concatenate([signatures, changed]))[
        "group"
    ].to_numpy()
    hit = (groups[len(paths) :] == np.tile(groups[chosen], len(least))).reshape(len(least), -1).mean(1)
    assert (hit >= list(least.values())).all(), dict(zip(least, hit, strict=True))
    assert len(np.unique(groups[: len(paths)])) >= len(paths) - 8  # modified pictures draw no others into their groups

"""Golden record: what the package computes equals the values in tests/golden/*.json. A move or a rename changes none.

Integers, texts and hashes are compared exactly, floats to 1e-3 relative (rounding differs between processors), the
first five training losses to 1e-5. Calls into the package stand in tests/golden/subject.py: adapt that file to a rename
and leave the JSON files alone. A change of numerics records them again on purpose (see CONTRIBUTING.md):

    ANIMALCLF_RECORD_GOLDEN=1 python -m pytest tests/test_golden.py
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from golden import subject

FOLDER = Path(__file__).parent / "golden"
RECORD = os.environ.get("ANIMALCLF_RECORD_GOLDEN") == "1"
RELATIVE = 1e-3
AVX2 = 11  # OpenCV's number of the instruction set
FIRST_LOSSES, RELATIVE_FIRST = 5, 1e-5


def check(name: str, computed: Any) -> None:
    """Compare plain data with the record `name`, or (with ANIMALCLF_RECORD_GOLDEN=1) make it the record."""
    file = FOLDER / f"{name}.json"
    if RECORD:
        file.write_text(json.dumps(computed, indent=1) + "\n")
    recorded = json.loads(file.read_text())
    problems = differences(recorded, computed, "")
    assert not problems, f"{file.name}: {len(problems)} values differ from the record: " + "; ".join(problems[:8])


def differences(recorded: Any, computed: Any, where: str) -> list[str]:
    """`place: recorded -> computed` for each value that differs by more than its tolerance."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        if recorded.keys() != computed.keys():
            return [f"{where}: keys {sorted(recorded)} -> {sorted(computed)}"]
        return [line for key in recorded for line in differences(recorded[key], computed[key], f"{where}.{key}")]
    if isinstance(recorded, list) and isinstance(computed, list):
        if len(recorded) != len(computed):
            return [f"{where}: {len(recorded)} values -> {len(computed)}"]
        pairs = enumerate(zip(recorded, computed, strict=True))
        return [line for number, (old, new) in pairs for line in differences(old, new, f"{where}[{number}]")]
    if isinstance(recorded, float) and isinstance(computed, float):
        first = where in [f".losses[{number}]" for number in range(FIRST_LOSSES)]
        same = math.isclose(recorded, computed, rel_tol=RELATIVE_FIRST if first else RELATIVE, abs_tol=1e-9)
    else:
        same = type(recorded) is type(computed) and recorded == computed
    return [] if same else [f"{where}: {recorded!r} -> {computed!r}"]


def test_the_comparison_finds_differences() -> None:
    assert differences({"a": [1, 2.0]}, {"a": [1, 2.001]}, "") == []
    assert differences({"a": [1, 2.0]}, {"a": [1, 2.003]}, "") == [".a[1]: 2.0 -> 2.003"]
    assert differences({"a": 1}, {"a": 2}, "") and differences({"a": 1}, {"b": 1}, "") and differences([1], [1, 1], "")
    first = differences({"losses": [1.0] * 6}, {"losses": [1.0001] * 6}, "")
    assert first == [f".losses[{number}]: 1.0 -> 1.0001" for number in range(5)]


# ---------------------------------------------------------------------------------------------------------------- split


def manifest() -> pd.DataFrame:
    """600 rows of six classes (320 to 20 images): a third in duplicate groups, some across classes; some unreadable."""
    generator = np.random.default_rng(0)
    labels = np.repeat(["ant", "bear", "cat", "dog", "eel", "fox"], [320, 120, 80, 40, 20, 20])
    group = np.arange(len(labels))
    for row in generator.integers(1, len(labels), 200):
        group[row] = group[row - 1]
    paths = [f"{label}/{number:04d}.jpg" for number, label in enumerate(labels)]
    status = np.where(generator.random(len(labels)) < 0.02, "empty file", "ok")
    digests = [subject.sha256(path) for path in paths]
    columns = {"path": paths, "label": labels, "group": group, "status": status, "sha256": digests, "split": ""}
    return pd.DataFrame(columns)


def test_split() -> None:
    table = manifest()
    given_splits = table.assign(split=np.where(np.arange(len(table)) % 7 == 0, "test", ""))
    cases: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "default": (table, {}),
        "seed": (table, {"split_seed": 7}),
        "val and test": (table, {"val": 0.15, "test": 0.1}),
        "fold 0 of 5": (table, {"folds": 5}),
        "fold 3 of 5 with test": (table, {"folds": 5, "fold": 3, "test": 0.2}),
        "given test": (given_splits, {"val": 0.25}),
    }
    computed = {}
    for name, (rows, settings) in cases.items():
        splits = subject.split_of(rows, **settings)
        lines = sorted(f"{path}\t{split}\n" for path, split in zip(rows["path"], splits, strict=True))
        computed[name] = {"counts": dict(sorted(Counter(splits).items())), "sha256": subject.sha256("".join(lines))}
    check("split", computed)


# ----------------------------------------------------------------------------------------------------------- duplicates


def noise_image(generator: np.random.Generator, height: int = 128, width: int = 160) -> np.ndarray:
    """Noise of all scales uint8 (H, W, 3), as photographs have; integer arithmetic, so the same on every processor."""
    total = np.zeros((height, width, 3), np.int64)
    for side in (1, 2, 4, 8, 16, 32):
        coarse = generator.integers(-60, 61, (height // side, width // side, 3))
        total += side * coarse.repeat(side, 0).repeat(side, 1)
    return np.clip(128 + total // 24, 0, 255).astype(np.uint8)


def variants(image: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Modified duplicates of an image; "recompressed" quantises with noise as a lossy codec does, without one."""
    quantised = image.astype(np.int64) // 10 * 10 + 5 + generator.integers(-3, 4, image.shape)
    half = (image[::2, ::2].astype(np.int64) + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) // 4
    return {
        "mirrored": image[:, ::-1],
        "cropped": image[8:-8, 10:-10],
        "recompressed": np.clip(quantised, 0, 255).astype(np.uint8),
        "darker": (image.astype(np.int64) * 7 // 10).astype(np.uint8),
        "half the size": half.astype(np.uint8),
        "turned": np.rot90(image),
        "double exposure": ((image.astype(np.int64) * 2 + noise_image(generator)) // 3).astype(np.uint8),
        "mirrored and cropped": image[6:, :-12][:, ::-1],
        "identical": image,
    }


def test_duplicates() -> None:
    generator = np.random.default_rng(0)
    images = [noise_image(generator) for _ in range(40)]
    digests = [subject.sha256(str(number)) for number in range(40)]
    for number in range(27):
        name, image = list(variants(images[number], generator).items())[number % 9]
        images.append(np.ascontiguousarray(image))
        digests.append(digests[number] if name == "identical" else subject.sha256(f"{name} {number}"))
    computed = subject.duplicates_of(digests, images)
    assert sum(computed["representative"][40 + number] == number for number in range(27)) == 27
    check("duplicates", computed)


# --------------------------------------------------------------------------------------------------------- augmentation


@pytest.mark.skipif(not cv2.checkHardwareSupport(AVX2), reason="OpenCV rounds differently without AVX2 and FMA")
def test_augmentation() -> None:
    generator = np.random.default_rng(1)
    images = np.stack([noise_image(generator, 96, 96) for _ in range(3)])
    index = np.array([0, 17, 4096])
    settings = {
        "recipe": subject.recipe_augmentation("big_cnn"),
        "crop, colour, erase": {
            "flip": True,
            "crop": (0.4, 1.0),
            "brightness": 0.4,
            "contrast": 0.3,
            "saturation": 0.5,
            "erase": 0.7,
        },
        "TrivialAugment": {"flip": True, "trivial": True},
    }
    computed: dict[str, Any] = {"validation": [subject.sha256(view) for view in subject.plain(images, 76)]}
    for name, changes in settings.items():
        for epoch in (0, 1):
            batch = subject.augmented(images, index, changes, 5, epoch, 76)
            assert batch.dtype == np.uint8 and batch.shape == (3, 76, 76, 3)
            computed[f"{name}, epoch {epoch}"] = [subject.sha256(view) for view in batch]
    check("augmentation", computed)


# ---------------------------------------------------------------------------------------------------------- batch order


def test_batch_order() -> None:
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), [150, 60, 30, 7])
    permuted = generator.permutation(len(labels))
    rows = {"train": np.sort(permuted[:190]), "val": np.sort(permuted[190:]), "test": permuted[:0]}
    computed = {}
    for balance in ("none", "class_weights", "sampling"):
        for world in (1, 2, 4):
            batches = [
                subject.batch_order(labels, rows, balance, phase, epoch, rank, world)
                for phase, epoch in (("train", 0), ("train", 1), ("val", 0))
                for rank in range(world)
            ]
            computed[f"{balance}, {world} ranks"] = {
                "sizes": [[len(batch) for batch in batches[rank]] for rank in range(world)],
                "sha256": subject.sha256(*(batch.astype(np.int64) for ranks in batches for batch in ranks)),
            }
    check("batch_order", computed)


# ------------------------------------------------------------------------------------------------------------- training

COUNTS = (24, 18, 12)
# Images are stored at the input size and augmented by flips alone, so that all processors train on the same pixels. Low
# learning rates: at the recipes' own, Adam's first steps make rounding errors of the gradient as large as the gradient.
FLIP = ["augment.rotation=0", "augment.shift=0", "augment.zoom=[1, 1]", "augment.flip=true"]
TRAININGS = {
    "big_cnn": (76, ["optim.lr=1e-6", *FLIP]),
    "big_cnn_balanced": (76, ["optim.lr=1e-6", *FLIP]),
    "vgg16_pooled": (32, ["model.weights=none"]),
    "resnet18": (64, ["model.weights=none", "optim.lr=1e-5", *FLIP]),
}


@pytest.mark.parametrize("recipe", TRAININGS)
def test_training(recipe: str) -> None:
    size, sets = TRAININGS[recipe]
    sizes = [f"data.stored_size={size}", f"model.input_size={size}", "train.batch_size=4", "train.epochs=2"]
    computed = subject.training(recipe, COUNTS, size, [*sizes, "train.precision=fp32", "augment.on=data", *sets])
    assert len(computed["losses"]) == 20
    check(f"training_{recipe}", computed)


# ------------------------------------------------------------------------------------ ensemble, submission, leaderboard


def probabilities(generator: np.random.Generator, labels: np.ndarray, skill: float, sharpness: float) -> np.ndarray:
    """Class probabilities float32 (N, 3) of a model with this much evidence for the true class."""
    logits = sharpness * (generator.normal(0, 1, (len(labels), 3)) + skill * np.eye(3)[labels])
    raised = np.exp(logits)
    return (raised / raised.sum(1, keepdims=True)).astype(np.float32)


def test_ensemble() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [90, 60, 30])
    traits = ((1.2, 1.0), (2.0, 3.0), (1.6, 0.5))
    models = np.stack([probabilities(generator, labels, skill, sharpness) for skill, sharpness in traits])
    groups = np.arange(len(labels)) // 2
    check(
        "ensemble",
        {method: subject.ensemble_of(method, models, labels, groups) for method in ("vote", "mean", "weighted")},
    )


def test_submission() -> None:
    generator = np.random.default_rng(4)
    paths = [f"{'abc'[number % 3]}/{number}.jpeg" for number in (10, 2, 1, 33, 4, 100, 5, 12, 7, 8, 9, 0)]
    predicted = probabilities(generator, np.arange(12) % 3, 1.0, 1.0)
    check("submission", subject.submission_file(paths, ["bear", "cat", "dog"], predicted).splitlines(True))


def test_leaderboard() -> None:
    generator = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [40, 30, 20])
    runs = [
        ("vgg16_pooled", 0, probabilities(generator, labels, 1.7, 1.0)),
        ("vgg16_pooled", 1, probabilities(generator, labels, 1.8, 1.0)),
        ("resnet18", 0, probabilities(generator, labels, 1.1, 1.5)),
    ]
    check("leaderboard", subject.leaderboard_of(runs, labels))

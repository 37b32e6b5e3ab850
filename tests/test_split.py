"""The split: fractions, groups, seeds, folds, given splits, and classes that cannot be split."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare.split import split, straddling_groups


def manifest(labels: list[str], group: list[int] | None = None, given_split: list[str] | None = None) -> pd.DataFrame:
    digests = [hashlib.sha256(f"{label}{number}".encode()).hexdigest() for number, label in enumerate(labels)]
    return pd.DataFrame(
        {
            "label": labels,
            "group": range(len(labels)) if group is None else group,
            "status": "ok",
            "split": [""] * len(labels) if given_split is None else given_split,
            "sha256": digests,
        }
    )


def counts(table: pd.DataFrame, result: np.ndarray) -> dict[tuple[str, str], int]:
    return dict(Counter(zip(table["label"], result, strict=True)))


def test_fractions_hold_in_every_class() -> None:
    table = manifest(["a"] * 100 + ["b"] * 37 + ["c"] * 2)
    assert counts(table, split(table, Data(val=0.2, test=0.1))) == {
        ("a", "train"): 70,
        ("a", "val"): 20,
        ("a", "test"): 10,
        ("b", "train"): 26,
        ("b", "val"): 7,
        ("b", "test"): 4,
        ("c", "train"): 1,
        ("c", "val"): 1,
    }


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    table = manifest(["a"] * 60 + ["b"] * 40, group=[number // 3 for number in range(60)] + list(range(100, 140)))
    result = split(table, Data())
    shuffled = table.sample(frac=1, random_state=5)
    again = split(shuffled.assign(group=shuffled["group"] * 7 % 1009), Data())
    assert list(again) == list(result[shuffled.index])
    assert list(split(table, Data())) == list(result)
    assert list(split(table, Data(split_seed=1))) != list(result)


def test_a_larger_validation_split_contains_the_smaller_one() -> None:
    table = manifest(["a"] * 100)
    small, large = split(table, Data(val=0.1)) == "val", split(table, Data(val=0.2)) == "val"
    assert (large | ~small).all() and small.sum() == 10 and large.sum() == 20


def test_groups_stay_whole_and_fractions_hold_within_one_group() -> None:
    generator = np.random.default_rng(0)
    sizes = np.concatenate([[50, 20], generator.integers(1, 6, 60)])
    table = manifest(["a"] * int(sizes.sum()), group=np.repeat(np.arange(62), sizes).tolist())
    for seed in range(5):
        config = Data(val=0.25, test=0.15, split_seed=seed)
        table["split"] = ""
        table["split"] = split(table, config)
        assert (table.groupby("group")["split"].nunique() == 1).all() and len(straddling_groups(table)) == 0
        for name, fraction in (("val", 0.25), ("test", 0.15)):
            assert abs((table["split"] == name).sum() - fraction * len(table)) <= 5


def test_one_giant_group_does_not_empty_a_split() -> None:
    table = manifest(["a"] * 51, group=[0] * 50 + [1])
    assert set(split(table, Data(val=0.2))) == {"train", "val"}
    table = manifest(["a"] * 3)
    assert counts(table, split(table, Data(val=0.9))) == {("a", "train"): 1, ("a", "val"): 2}


def test_duplicates_with_different_labels_are_in_one_split() -> None:
    table = manifest(["a"] * 10 + ["b"] * 10, group=[*range(8), 90, 90, 90, *range(11, 19), 8])
    for seed in range(8):
        result = split(table, Data(split_seed=seed, val=0.5))
        assert len(set(result[[8, 9, 10]])) == 1


def test_unreadable_images_get_no_split_and_do_not_count() -> None:
    table = manifest(["a"] * 10 + ["b"] * 2)
    table.loc[[0, 1, 2, 3, 4], "status"] = "empty file"
    result = split(table, Data(val=0.4))
    assert list(result[:5]) == [""] * 5 and (result[5:10] == "val").sum() == 2


def test_folds_partition_the_data_and_every_class_is_in_each() -> None:
    table = manifest(
        ["a"] * 23 + ["b"] * 5 + ["c"] * 40, group=[*range(28), *(30 + number // 4 for number in range(40))]
    )
    times_validated = np.zeros(len(table), int)
    for fold in range(5):
        result = split(table, Data(folds=5, fold=fold))
        assert {label for (label, name), _ in counts(table, result).items() if name == "val"} == {"a", "b", "c"}
        assert 4 <= ((result == "val") & (table["label"] == "a")).sum() <= 5
        times_validated += result == "val"
    assert (times_validated == 1).all()


def test_all_folds_have_the_same_test_split() -> None:
    table = manifest(["a"] * 50 + ["b"] * 50)
    tests = [split(table, Data(folds=4, fold=fold, test=0.2)) == "test" for fold in range(4)]
    assert tests[0].sum() == 20 and all((fold_test == tests[0]).all() for fold_test in tests)


def test_given_splits_are_not_changed() -> None:
    given_split = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    table = manifest(["a"] * 10 + ["b"] * 10, given_split=given_split * 2)
    assert list(split(table, Data(val=0.5, test=0.3))) == given_split * 2


def test_without_a_given_validation_split_it_is_filled_from_train() -> None:
    table = manifest(["a"] * 20 + ["b"] * 20, given_split=(["train"] * 15 + ["test"] * 5) * 2)
    result = split(table, Data(val=0.2, test=0.5))
    assert list(result[table["split"] == "test"]) == ["test"] * 10
    assert counts(table, result) == {
        (label, name): n for label in "ab" for name, n in (("train", 12), ("val", 3), ("test", 5))
    }


def test_a_duplicate_follows_a_given_split_and_groups_across_splits_are_found() -> None:
    table = manifest(
        ["a"] * 8 + ["b"] * 4,
        group=[0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        given_split=["test", "", "train", "test", *[""] * 8],
    )
    table["split"] = split(table, Data(val=0.3))
    assert list(table["split"][:4]) == ["test", "test", "train", "test"]
    assert straddling_groups(table).tolist() == [1]
    table["split"] = ["test", "", "train", "test", *[""] * 8]
    dropped = split(table, Data(val=0.3, given_split_duplicates="drop"))
    assert list(dropped[:4]) == ["test", "test", "", "test"] and "" not in dropped[4:]
    assert not len(straddling_groups(table.assign(split=dropped)))


@pytest.mark.parametrize(
    ("table", "config", "text"),
    [
        (manifest(["a", "a", "lone"]), Data(), "(?s)class 'lone' has only one image.*data.small_classes=train"),
        (
            manifest(["a", "a", "same", "same"], group=[0, 1, 2, 2]),
            Data(),
            r"class 'same' has only duplicates of one image \(2 files\)",
        ),
        (manifest(["a"] * 9 + ["b"] * 2), Data(folds=3), "class 'b' has only 2 different images.*lower data.folds"),
        (manifest(["a", "a", "b"], group=[0, 1, 1]), Data(val=0), "class 'b' has no image to train on"),
        (
            manifest(["a", "a", "b", "b"], given_split=["train", "val", "val", "test"]),
            Data(),
            "class 'b' has no image to train on",
        ),
        (
            manifest(["a"] * 4, given_split=["train", "train", "val", "val"]),
            Data(folds=2),
            r"already has validation images .column 'split'",
        ),
        (manifest(["a"] * 4, given_split=["train", "train", "dev", "val"]), Data(), "'dev' is not a split"),
    ],
)
def test_a_class_that_cannot_be_split_is_named_with_the_remedy(table: pd.DataFrame, config: Data, text: str) -> None:
    with pytest.raises(UserError, match=text):
        split(table, config)


def test_without_validation_one_image_is_enough() -> None:
    table = manifest(["a", "a", "lone"])
    assert set(split(table, Data(val=0))) == {"train"}
    assert split(table, Data(val=0, test=0.6))[2] == "train"


def test_many_rows_take_seconds() -> None:
    count = 200_000
    table = pd.DataFrame(
        {
            "label": np.arange(count) % 500,
            "group": np.arange(count) // 2,
            "status": "ok",
            "split": "",
            "sha256": [f"{number:064x}" for number in range(count)],
        }
    )
    table["label"] = (table["group"] % 500).astype(str)
    started = time.process_time()
    result = split(table, Data())
    assert time.process_time() - started < 10 and (result == "val").mean() == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("options", [{}, {"test": 0.2}, *({"folds": 3, "fold": fold} for fold in range(3))])
def test_classes_of_too_few_images_train(options):
    rows = manifest(["a"] * 20 + ["lone"] + ["pair"] * 2 + ["b"] * 20)
    result = split(rows, Data(small_classes="train", **options))
    assert result[20] == "train" and set(result[:20]) > {"val"} and set(result[23:]) > {"val"}
    if "folds" in options:
        assert list(result[21:23]) == ["train", "train"]
    assert list(split(rows.drop(20), Data())) == list(split(rows.drop(20), Data(small_classes="train")))

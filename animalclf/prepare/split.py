"""The training, validation and test split: stratified by class, whole groups of duplicates, seeded, independent of the
order of the rows.

Groups of duplicates are assigned to splits, not single images. Their order is a hash of the seed and of the content
(sha256): the split survives renamed and moved files, and a few added images hardly change it. A split that a table or
folders give is not changed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from animalclf.config import Data
from animalclf.errors import UserError

SPLITS = ("train", "val", "test")
MAX_NAMED = 5  # classes in an error


def split(manifest: pd.DataFrame, config: Data) -> np.ndarray:
    """The split of every row, object (rows,): "train", "val" or "test", and "" for unreadable images.

    `manifest` has the columns label, group, status, sha256 and split: the given split, or "". Rows whose status is not
    "ok" are unreadable.

    - Each class is split by the fractions `config.val` and `config.test`, as exactly as its groups allow, and with at
      least one image in each split if it has enough groups. With `config.folds` = k its groups go to k folds instead:
      fold `config.fold` validates, the others train.
    - A group counts for the label that most of its images carry (the first by name in a tie), and stays whole.
    - A given val or test is not changed. A split that no row is given is filled from the rows that are given train or
      nothing; a split that some row is given gets no others, except that rows given nothing follow a duplicate that is
      given val or test. Duplicates that are given different splits stay in them, and
      `straddling_groups` finds them; with `config.given_split_duplicates` = drop those given train are in no split.
    - With `config.small_classes` "train" all groups of a class that has too few of them train.

    Raises UserError for a class without an image to train on, a class of one group if validation images are wanted,
    a class with fewer groups than folds, and folds together with given validation images.
    """
    ok = (manifest["status"] == "ok").to_numpy()
    rows = manifest[ok]
    given_split = rows["split"].to_numpy(dtype=object)
    unknown = sorted(set(given_split) - {"", *SPLITS})
    if unknown:
        raise UserError(
            f"column {config.split_column!r}: {unknown[0]!r} is not a split; write train, val, test, or nothing"
        )
    if config.folds and "val" in given_split:
        raise UserError(
            f"data.folds={config.folds}: the data already has validation images "
            f"(column {config.split_column!r}, or folders); set data.folds=0"
        )
    parts, fractions = _parts(config, "val" in given_split, "test" in given_split)

    group = pd.factorize(rows["group"])[0]
    sizes = np.bincount(group)
    group_split = np.full(len(sizes), "", dtype=object)
    for name in ("val", "test"):  # test overrides val: an image without a given split must not leak from the test split
        group_split[group[given_split == name]] = name
    label, classes = _majority(group, rows["label"])
    free_groups = np.flatnonzero(group_split == "")
    free_groups = free_groups[
        np.lexsort((_hashes(group, rows["sha256"], config.split_seed)[free_groups], label[free_groups]))
    ]
    class_groups = np.split(free_groups, np.searchsorted(label[free_groups], np.arange(1, len(classes))))
    _refuse_small_classes(classes, class_groups, sizes, config, fractions[1] > 0)
    for number, groups in enumerate(class_groups):
        if len(groups) < _min_groups(config, fractions[1] > 0):
            group_split[groups] = "train"
            continue
        # Rotated by class, so that the extra images of uneven folds do not all go to the first fold.
        folds = np.roll(parts[: config.folds], number)
        group_split[groups] = np.concatenate([folds, parts[config.folds :]])[_assign(sizes[groups], fractions)]

    result = np.full(len(manifest), "", dtype=object)
    result[ok] = np.where(
        (given_split == "") | (given_split == "train") & np.isin(group, free_groups), group_split[group], given_split
    )
    if config.given_split_duplicates == "drop":  # every class keeps images: `_refuse_small_classes` counts free groups
        result[ok] = np.where((result[ok] == "train") & (group_split[group] != "train"), "", result[ok])
    return result


def straddling_groups(manifest: pd.DataFrame) -> np.ndarray:
    """The groups (int64, ascending) with images in more than one split, which only a given split can cause."""
    rows = manifest[(manifest["status"] == "ok") & (manifest["split"] != "")]
    group = rows.drop_duplicates(["group", "split"])["group"].to_numpy(np.int64)
    groups, splits = np.unique(group, return_counts=True)
    return groups[splits > 1]


def _parts(config: Data, has_val: bool, has_test: bool) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a class: the split of each, object (parts,), and its fraction, float (parts,)."""
    test = 0.0 if has_test else config.test
    if config.folds:
        folds = ["val" if number == config.fold else "train" for number in range(config.folds)]
        return np.array([*folds, "test"], dtype=object), np.array([(1 - test) / config.folds] * config.folds + [test])
    val = 0.0 if has_val else config.val
    return np.array(SPLITS, dtype=object), np.array([1 - val - test, val, test])


def _majority(group: np.ndarray, labels: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The most frequent label of every group as a class number int64 (groups,), and the class names, sorted."""
    codes, classes = pd.factorize(labels, sort=True)
    pairs, count = np.unique(group.astype(np.int64) * max(len(classes), 1) + codes, return_counts=True)
    pair_group, label = np.divmod(pairs, max(len(classes), 1))
    best_first = np.lexsort((label, -count, pair_group))
    first = np.unique(pair_group[best_first], return_index=True)[1]
    return label[best_first][first], list(classes)


def _hashes(group: np.ndarray, sha256: pd.Series, seed: int) -> np.ndarray:
    """A random number for every group, uint64 (groups,), that depends on the seed and the group's content only."""
    digests = (hashlib.blake2b(f"{seed} {digest}".encode(), digest_size=8).digest() for digest in sha256)
    hashes = np.frombuffer(b"".join(digests), np.uint64)
    smallest = np.full(group.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, group, hashes)
    return smallest


def _assign(sizes: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """A part number for every group, int64 (groups,): the images of each part are close to `fractions` of all, and no
    part is empty if that can be avoided.

    `sizes`: images of each group, in their random order. Groups of equal size are assigned together, the largest first,
    each time to the parts that lack most: the many single images even out what large groups could not.
    """
    part = np.empty(len(sizes), np.int64)
    filled, total = np.zeros(len(fractions)), 0
    for size in np.unique(sizes)[::-1]:
        members = np.flatnonzero(sizes == size)
        total += size * len(members)
        need = np.clip((fractions * total - filled) / size, 0, None)
        need *= len(members) / need.sum()
        counts = need.astype(np.int64)
        counts[np.argsort(counts - need, kind="stable")[: len(members) - counts.sum()]] += 1
        part[members] = np.repeat(np.arange(len(fractions)), counts)
        filled += counts * size
    groups = np.bincount(part, minlength=len(fractions))
    for empty in np.flatnonzero((groups == 0) & (fractions > 0)):
        donor = groups.argmax()
        if groups[donor] > 1 or donor > empty:  # with too few groups, training is filled first and test last
            members = np.flatnonzero(part == donor)
            part[members[sizes[members].argmin()]] = empty
            groups = np.bincount(part, minlength=len(fractions))
    return part


def _min_groups(config: Data, val: bool) -> int:
    """The number of groups that a class needs. `val`: whether validation images are wanted."""
    return config.folds or (2 if val else 1)


def _refuse_small_classes(
    classes: list[str], class_groups: list[np.ndarray], sizes: np.ndarray, config: Data, val: bool
) -> None:
    """Raise one UserError for all classes with too few groups for the splits. `class_groups`: the groups of each class;
    `sizes`: images of each group; `val`: whether validation images are wanted."""
    min_groups = 1 if config.small_classes == "train" else _min_groups(config, val)
    problems = []
    for name, groups in zip(classes, class_groups, strict=True):
        if len(groups) >= min_groups:
            continue
        images = int(sizes[groups].sum())
        if not images:
            problem = "no image to train on: all are given to val or test, or are duplicates of another class's images"
        elif len(groups) == 1:
            problem = "only one image" if images == 1 else f"only duplicates of one image ({images} files)"
        else:
            problem = f"only {len(groups)} different images"
        problems.append(f"class {name!r} has {problem}")
    if not problems:
        return
    in_training = "use such classes for training only with --set data.small_classes=train"
    if min_groups == 1:
        purpose, remedy = "training", "change the given splits"
    elif config.folds:
        purpose, remedy = f"{config.folds} folds", f"lower data.folds, or {in_training}"
    else:
        purpose, remedy = "training and validation", f"set data.val=0 to train without validation, or {in_training}"
    more = f"; and {len(problems) - MAX_NAMED} more classes" if len(problems) > MAX_NAMED else ""
    raise UserError(
        f"too few images for {purpose}: {'; '.join(problems[:MAX_NAMED])}{more}. "
        f"Add images, remove the class, or {remedy}"
    )

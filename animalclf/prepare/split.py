"""Which pictures train, validate and test: stratified by class, duplicates together, drawn by a seed, the same whatever the order of the rows.

Groups of duplicates, not images, are dealt. Their order is a hash of the seed and of the content (sha256), so that the split survives renamed and
moved files, and a few added pictures hardly change it. Splits that a table gives are kept.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from animalclf.config import Data
from animalclf.errors import UserError

SPLITS = ("train", "val", "test")


def split(manifest: pd.DataFrame, config: Data) -> np.ndarray:
    """The split of every row, object (rows,): "train", "val" or "test", and "" for rows set aside.

    `manifest` has the columns label, group, status, sha256 and split, where split is what the table gave, or "". Rows not "ok" are set aside.

    - Every class is dealt by `config.val` and `config.test`, as near to the shares as its groups allow, and with a picture on each side where it
      has the groups. With `config.folds` = k its groups are dealt to k folds instead: fold `config.fold` validates, the others train.
    - A group is dealt by the label that most of its pictures carry (the first by name among equals), and stays whole.
    - A given val or test is kept. What no row is given is dealt from the rows that are given train or nothing; what some row is given is not dealt.
      Rows given nothing join a copy that is given val or test. Copies that are given different sides stay there: `straddling` finds them.

    Raises UserError for a class without a picture to train on, a class with one group while validation pictures are wanted, a class with fewer
    groups than folds, and folds together with given validation pictures.
    """
    ok = (manifest["status"] == "ok").to_numpy()
    rows = manifest[ok]
    given = rows["split"].to_numpy(dtype=object)
    unknown = sorted(set(given) - {"", *SPLITS})
    if unknown:
        raise UserError(
            f"column {config.split_column!r}: {unknown[0]!r} is not a split; write train, val, test, or nothing"
        )
    if config.folds and "val" in given:
        raise UserError(
            f"data.folds={config.folds}: column {config.split_column!r} names the validation pictures already; set data.folds=0"
        )
    parts, shares = _parts(config, "val" in given, "test" in given)

    group = pd.factorize(rows["group"])[0]
    sizes = np.bincount(group)
    side = np.full(len(sizes), "", dtype=object)
    for name in ("val", "test"):  # where duplicates are given both, a free one is kept out of the way of the test
        side[group[given == name]] = name
    label, classes = _majority(group, rows["label"])
    free = np.flatnonzero(side == "")
    free = free[np.lexsort((_order(group, rows["sha256"], config.split_seed)[free], label[free]))]
    of_class = np.split(free, np.searchsorted(label[free], np.arange(1, len(classes))))
    _check(classes, of_class, sizes, config, shares[1] > 0)
    for number, mine in enumerate(of_class):
        folds = np.roll(
            parts[: config.folds], number
        )  # so that what is left over does not always fall to the first fold
        side[mine] = np.concatenate([folds, parts[config.folds :]])[_deal(sizes[mine], shares)]

    result = np.full(len(manifest), "", dtype=object)
    result[ok] = np.where((given == "") | (given == "train") & np.isin(group, free), side[group], given)
    return result


def straddling(manifest: pd.DataFrame) -> np.ndarray:
    """The groups (int64, ascending) with pictures on more than one side, which only a given split can bring about."""
    rows = manifest[manifest["status"] == "ok"]
    sides = rows.drop_duplicates(["group", "split"])["group"].to_numpy(np.int64)
    groups, count = np.unique(sides, return_counts=True)
    return groups[count > 1]


def _parts(config: Data, has_val: bool, has_test: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is dealt: the split of each part, object (parts,), and its share of a class, float (parts,)."""
    test = 0.0 if has_test else config.test
    if config.folds:
        folds = ["val" if number == config.fold else "train" for number in range(config.folds)]
        return np.array([*folds, "test"], dtype=object), np.array([(1 - test) / config.folds] * config.folds + [test])
    val = 0.0 if has_val else config.val
    return np.array(SPLITS, dtype=object), np.array([1 - val - test, val, test])


def _majority(group: np.ndarray, labels: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The commonest label of every group as a class number int64 (groups,), and the class names, sorted."""
    codes, classes = pd.factorize(labels, sort=True)
    pairs, count = np.unique(group.astype(np.int64) * max(len(classes), 1) + codes, return_counts=True)
    of_group, label = np.divmod(pairs, max(len(classes), 1))
    best_first = np.lexsort((label, -count, of_group))
    first = np.unique(of_group[best_first], return_index=True)[1]
    return label[best_first][first], list(classes)


def _order(group: np.ndarray, sha256: pd.Series, seed: int) -> np.ndarray:
    """A random number for every group, uint64 (groups,), that depends on the seed and the group's content alone."""
    hashed = (hashlib.blake2b(f"{seed} {digest}".encode(), digest_size=8).digest() for digest in sha256)
    numbers = np.frombuffer(b"".join(hashed), np.uint64)
    smallest = np.full(group.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, group, numbers)
    return smallest


def _deal(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A part number for every group, int64 (groups,), so that the parts' pictures come near `shares` of all; no part stays empty needlessly.

    `sizes`: pictures of each group, in the order of dealing. Groups of one size are dealt at once, large ones first, each time to make up for what
    the parts lack so far: the many single pictures even out what large groups could not.
    """
    part = np.empty(len(sizes), np.int64)
    taken, total = np.zeros(len(shares)), 0
    for size in np.unique(sizes)[::-1]:
        members = np.flatnonzero(sizes == size)
        total += size * len(members)
        need = np.clip((shares * total - taken) / size, 0, None)
        need *= len(members) / need.sum()
        counts = need.astype(np.int64)
        counts[np.argsort(counts - need, kind="stable")[: len(members) - counts.sum()]] += 1
        part[members] = np.repeat(np.arange(len(shares)), counts)
        taken += counts * size
    groups = np.bincount(part, minlength=len(shares))
    for empty in np.flatnonzero((groups == 0) & (shares > 0)):
        donor = groups.argmax()
        if groups[donor] > 1 or donor > empty:  # training comes first, test last
            members = np.flatnonzero(part == donor)
            part[members[sizes[members].argmin()]] = empty
            groups = np.bincount(part, minlength=len(shares))
    return part


def _check(classes: list[str], of_class: list[np.ndarray], sizes: np.ndarray, config: Data, val: bool) -> None:
    """Refuse classes that cannot be dealt, all in one message."""
    needed = config.folds or (2 if val else 1)
    found = []
    for name, mine in zip(classes, of_class, strict=True):
        if len(mine) >= needed:
            continue
        pictures = int(sizes[mine].sum())
        if not pictures:
            what = "no picture to train on that is not a copy of another class's picture or given to val or test"
        elif len(mine) == 1:
            what = "only one picture" if pictures == 1 else f"only duplicates of one picture ({pictures} files)"
        else:
            what = f"only {len(mine)} different pictures"
        found.append(f"class {name!r} has {what}")
    if found:
        wanted = f"{needed} folds" if config.folds else "training and validation" if val else "training"
        other = (
            "lower data.folds"
            if config.folds
            else "set data.val=0 to train without validation"
            if val
            else "change the given splits"
        )
        more = f"; and {len(found) - 5} more classes" if len(found) > 5 else ""
        raise UserError(
            f"too little for {wanted}: {'; '.join(found[:5])}{more}. Add pictures, remove the class, or {other}"
        )

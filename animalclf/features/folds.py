"""Folds of images: stratified by class, duplicates together, drawn by a seed. Plain NumPy."""

from __future__ import annotations

import numpy as np


def deal_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold number int64 (N,) for each image, from 0 to `folds` - 1.

    `labels`: class numbers int64 (N,). `groups`: int64 (N,); images of one group (duplicates) get the same fold. The
    groups of a class go one after the other, large ones first, to the fold with the fewest images of the class, and
    among such folds to the smallest. A group counts for the class of most of its images.
    """
    group, label, size = _classes_of_groups(labels, groups)
    shuffled = np.random.default_rng([seed, 0x666F6C64]).permutation(len(size))
    order = shuffled[np.argsort(-size[shuffled], kind="stable")]
    class_counts = np.zeros((int(labels.max(initial=0)) + 1, folds), np.int64)
    fold = np.empty(len(size), np.int64)
    for member in order:
        totals = class_counts.sum(0)
        fold[member] = np.lexsort((totals, class_counts[label[member]]))[0]
        class_counts[label[member], fold[member]] += size[member]
    return fold[group]


def groups_of_classes(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """The number of groups that count for each class, int64 (classes,): the most folds that all have images of it."""
    return np.bincount(_classes_of_groups(labels, groups)[1], minlength=classes)


def _classes_of_groups(labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The position int64 (N,) of each image's group, and of each group its class and its number of images, int64
    (groups,)."""
    number, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(number), int(labels.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (group, labels), 1)
    return group, counts.argmax(1), counts.sum(1)

"""Inner folds of the training images: stratified by class, duplicates together, drawn by a seed. Plain NumPy."""

from __future__ import annotations

import numpy as np


def deal_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold number int64 (N,) for each image, from 0 to `folds` - 1.

    `labels`: class numbers int64 (N,). `groups`: int64 (N,); images of one group (duplicates) get the same fold. The
    groups of a class go one after the other, large ones first, to the fold with the fewest images of the class, and
    among such folds to the smallest. A group counts for the class of most of its images.
    """
    number, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(number), int(labels.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (group, labels), 1)
    label, size = counts.argmax(1), counts.sum(1)
    shuffled = np.random.default_rng([seed, 0x666F6C64]).permutation(len(number))
    order = shuffled[np.argsort(-size[shuffled], kind="stable")]
    of_class = np.zeros((counts.shape[1], folds), np.int64)
    fold = np.empty(len(number), np.int64)
    for member in order:
        totals = of_class.sum(0)
        fold[member] = np.lexsort((totals, of_class[label[member]]))[0]
        of_class[label[member], fold[member]] += size[member]
    return fold[group]

"""Which picture is seen when: the order of an epoch as a pure function of (seed, epoch), cut into steps and ranks. Plain numpy.

Every rank computes the same plan, so ranks agree on the number of steps before the epoch starts, and a global batch holds the same pictures
whatever the number of workers. Each training row is seen exactly once an epoch (or, with balanced sampling, each class equally often).
"""

from __future__ import annotations

import numpy as np


def epoch_order(rows: np.ndarray, labels: np.ndarray, balance: str, seed: int, epoch: int) -> np.ndarray:
    """The training rows of one epoch in their order, int64 (len(rows),).

    `rows`: int64 manifest rows of the training split; `labels`: their class numbers. With balance "sampling" every class that occurs is drawn
    equally often (within one picture), by going through its own shuffled pictures again and again, so that no picture of a class
    comes a second time before all others of that class have come. Otherwise every row comes once.
    """
    generator = np.random.default_rng([seed, epoch, 0x706C616E])
    if balance != "sampling":
        return generator.permutation(rows)
    present = np.unique(labels)
    share, extra = divmod(len(rows), len(present))
    favoured = set(generator.permutation(present)[:extra].tolist())
    drawn = []
    for label in present:
        mine = rows[labels == label]
        wanted = share + (label in favoured)
        rounds = -(-wanted // len(mine))
        drawn.append(np.concatenate([generator.permutation(mine) for _ in range(rounds)])[:wanted] if wanted else mine[:0])
    return generator.permutation(np.concatenate(drawn))


def steps_in(rows: int, batch_size: int) -> int:
    """Optimizer steps of an epoch of `rows` pictures: no picture is dropped."""
    return -(-rows // batch_size)


def cuts(rows: int, batch_size: int, world: int) -> np.ndarray:
    """Where the epoch's order is cut: int64 (steps, world + 1); rank r of step s has order[cuts[s, r]:cuts[s, r + 1]].

    The rows are spread evenly over the steps and then over the ranks (sizes differ by one at most), instead of a last step of a few pictures:
    BatchNorm never sees a stray tiny batch, and no rank is ever without a picture while rows >= world.
    """
    steps = steps_in(rows, batch_size)
    edges = np.arange(steps + 1) * rows // steps
    sizes = np.diff(edges)
    within = np.arange(world + 1)[None, :] * sizes[:, None] // world
    return edges[:-1, None] + within


def spread(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """About `count` of `rows`, in proportion to the classes and at least one of each class, ascending: for smoke runs (`--limit`)."""
    generator = np.random.default_rng([seed, 0x6C696D])
    kept = []
    for label in np.unique(labels):
        mine = generator.permutation(rows[labels == label])
        kept.append(mine[: max(1, round(count * len(mine) / len(rows)))])
    return np.sort(np.concatenate(kept)) if kept else rows[:0]

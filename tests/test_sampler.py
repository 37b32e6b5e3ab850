import numpy as np
import pytest

from animalclf.data import sampler

LABELS = np.repeat([0, 1, 2], [100, 30, 7])
ROWS = np.arange(1000, 1137)


@pytest.mark.parametrize(
    "rows, batch, world", [(137, 16, 1), (137, 16, 3), (5, 128, 4), (128, 128, 2), (129, 128, 2), (21_179, 128, 7)]
)
def test_every_row_once_and_every_rank_the_same_number_of_steps(rows, batch, world):
    edges = sampler.batch_edges(rows, batch, world)
    assert edges.shape == (sampler.steps_of(rows, batch), world + 1)
    assert np.array_equal(edges[1:, 0], edges[:-1, -1]) and edges[0, 0] == 0 and edges[-1, -1] == rows
    sizes = np.diff(edges, axis=1)
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1 + (world > 1)
    assert sizes.sum(1).max() <= batch


def test_global_batches_do_not_depend_on_the_number_of_workers():
    assert np.array_equal(sampler.batch_edges(137, 16, 1)[:, [0, -1]], sampler.batch_edges(137, 16, 4)[:, [0, -1]])


def test_order_is_a_permutation_fresh_each_epoch_and_reproducible():
    first = sampler.epoch_order(ROWS, LABELS, "none", 0, 0)
    assert np.array_equal(np.sort(first), ROWS)
    assert np.array_equal(first, sampler.epoch_order(ROWS, LABELS, "class_weights", 0, 0))
    for seed, epoch in [(0, 1), (1, 0)]:
        assert not np.array_equal(first, sampler.epoch_order(ROWS, LABELS, "none", seed, epoch))


def test_balanced_sampling_draws_every_class_equally_and_evenly():
    order = sampler.epoch_order(ROWS, LABELS, "sampling", 3, 5)
    assert len(order) == len(ROWS)
    counts = np.bincount(LABELS[order - 1000])
    assert counts.max() - counts.min() <= 1
    for label in range(3):
        times = np.bincount(order[LABELS[order - 1000] == label] - 1000, minlength=137)[label == LABELS]
        assert times.max() - times.min() <= 1
    assert np.array_equal(order, sampler.epoch_order(ROWS, LABELS, "sampling", 3, 5))

import numpy as np
import pytest

from animalclf.metrics import from_confusion, from_probabilities


def test_a_published_example():
    """Two raters of 50 proposals: they agree on 35, and 25 agreements are expected by chance."""
    assert from_confusion(np.array([[20, 5], [10, 15]]))["kappa"] == pytest.approx(0.4)


def test_chance_is_0_and_perfection_is_1():
    assert from_confusion(np.array([[60, 20], [15, 5]]))["kappa"] == pytest.approx(0)
    assert from_confusion(np.diag([3, 4, 5]))["kappa"] == 1
    assert from_confusion(np.array([[0, 5], [5, 0]]))["kappa"] == -1


def test_kappa_of_a_single_class_is_0():
    assert from_confusion(np.array([[7, 0], [0, 0]]))["kappa"] == 0


def test_kappa_has_an_interval():
    labels = np.repeat([0, 1, 2], [60, 30, 12])
    predicted = np.where(np.arange(102) % 5 == 0, (labels + 1) % 3, labels)
    evaluation = from_probabilities(np.eye(3)[predicted] * 0.8 + 0.1, labels, list("abc"))
    low, high = evaluation.intervals["kappa"]
    assert low < evaluation["kappa"] < high

import json

import numpy as np
import pytest

from animalclf.metrics import METRICS, Counts, Predictions, from_confusion, from_probabilities
from animalclf.metrics.calibration import calibration_bins, calibration_error
from animalclf.metrics.classification import per_class
from animalclf.metrics.intervals import bootstrap, clusters, independent_images, mean_recall, wilson
from animalclf.rows import CalibrationBin, Evaluation

CONFUSION = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])


def test_metrics_of_a_confusion_matrix_by_hand():
    values = from_confusion(CONFUSION)
    assert values["accuracy"] == pytest.approx(11 / 14)
    # A class without images does not count.
    assert values["balanced_accuracy"] == pytest.approx((0.8 + 0.75) / 2)
    assert values["macro_f1"] == pytest.approx((16 / 19 + 6 / 9) / 2)
    table = per_class(Counts.from_confusion(CONFUSION))
    assert table.precision == [pytest.approx(8 / 9), pytest.approx(3 / 5), None]
    assert table.recall == [pytest.approx(0.8), pytest.approx(0.75), None]
    assert table.support == [10, 4, 0]
    json.dumps([values, table.to_dict()], allow_nan=False)


def test_a_class_predicted_but_absent_costs_precision_elsewhere_only():
    confusion = np.array([[5, 0, 5], [0, 10, 0], [0, 0, 0]])
    assert from_confusion(confusion)["balanced_accuracy"] == pytest.approx(0.75)
    assert per_class(Counts.from_confusion(confusion)).precision[2] == 0.0


def test_an_empty_confusion_matrix_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        from_confusion(np.zeros((2, 2), int))


def test_metrics_of_counts_take_resamples_all_at_once():
    resampled = Counts(CONFUSION.sum(1), np.stack([CONFUSION.sum(0)] * 4), np.stack([CONFUSION.diagonal()] * 4))
    for metric in METRICS.entries().values():
        if metric.of_counts:
            assert metric.of_counts(resampled).tolist() == [metric.of_counts(Counts.from_confusion(CONFUSION))] * 4


def test_full_evaluation_agrees_with_definitions():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 500)
    logits = generator.normal(size=(500, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    evaluation = from_probabilities(probabilities, labels, list("abcd"))
    predicted = probabilities.argmax(1)
    assert evaluation["accuracy"] == pytest.approx((predicted == labels).mean())
    assert evaluation["balanced_accuracy"] == pytest.approx(
        np.mean([(predicted[labels == c] == c).mean() for c in range(4)])
    )
    assert evaluation["loss"] == pytest.approx(-np.log(probabilities[np.arange(500), labels]).mean())
    second = np.sort(probabilities, 1)[:, -2]
    assert evaluation["top2_accuracy"] == pytest.approx((probabilities[np.arange(500), labels] >= second).mean())
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        low, high = evaluation.intervals[name]
        assert low < evaluation[name] < high and 0.02 < high - low < 0.15
    assert np.array(evaluation.confusion).sum() == 500
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert Evaluation.from_dict(evaluation.to_dict()) == evaluation
    assert from_probabilities(probabilities, labels, list("abcd")) == evaluation


def two_classes(confidence, correct):
    """Predictions of class 0 with these confidences, right where `correct`."""
    return Predictions.from_probabilities(np.stack([confidence, 1 - confidence], 1), np.where(correct, 0, 1))


def test_calibration_error():
    right = np.array([True] * 8 + [False] * 2)
    predictions = two_classes(np.full(10, 0.8), right)
    assert calibration_bins(predictions) == [CalibrationBin(images=10, confidence=pytest.approx(0.8), accuracy=0.8)]
    assert calibration_error(predictions) == pytest.approx(0)
    assert calibration_error(two_classes(np.full(10, 1.0), right)) == pytest.approx(0.2)
    assert calibration_error(two_classes(np.array([1.0, 0.5]), np.array([True, False]))) == pytest.approx(0.25)


def test_wilson_against_the_published_example():
    assert wilson(0, 10) == (0, pytest.approx(0.2775, abs=1e-3))
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-3), pytest.approx(0.7634, abs=1e-3))


def test_the_loss_of_a_certain_mistake_is_finite():
    evaluation = from_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]), ["a", "b"])
    assert np.isfinite(evaluation["loss"]) and evaluation["balanced_accuracy"] == 0.5


def test_intervals_agree_with_a_bootstrap_of_the_images():
    labels, predicted = np.repeat([0, 1, 2], [60, 30, 12]), np.repeat([0, 1, 1, 0, 2, 1], [50, 10, 25, 5, 8, 4])
    evaluation = from_probabilities(np.eye(3)[predicted] * 0.8 + 0.1, labels, list("abc"))
    generator, resampled = np.random.default_rng(1), []
    for _ in range(2000):
        rows = np.concatenate([generator.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(3)])
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (labels[rows], predicted[rows]), 1)
        resampled.append([from_confusion(confusion)[name] for name in ("balanced_accuracy", "macro_f1")])
    expected = np.quantile(resampled, [0.025, 0.975], axis=0).T
    assert evaluation.intervals["balanced_accuracy"] == pytest.approx(expected[0], abs=0.02)
    assert evaluation.intervals["macro_f1"] == pytest.approx(expected[1], abs=0.02)


def test_the_interval_of_balanced_accuracy_has_width_where_one_class_takes_everything():
    labels = np.repeat(np.arange(10), 6)
    evaluation = from_probabilities(np.eye(10)[np.zeros(60, int)], labels, list("abcdefghij"))
    low, high = evaluation.intervals["balanced_accuracy"]
    wrong = wilson(0, 6)[1]
    assert (low, high) == pytest.approx((0.1 - wrong / 10, 0.1 + 3 * wrong / 10))
    assert mean_recall(Counts.from_confusion(np.array([[5, 1], [2, 4]]))) is None  # a bootstrap


def test_intervals_have_width_where_whole_classes_are_right_or_wrong():
    labels = np.repeat([0, 1], 10)
    perfect = from_probabilities(np.eye(2)[labels], labels, "ab").intervals
    for name, worst in (("macro_f1", 0.8), ("kappa", 0.6)):
        low, high = perfect[name]
        assert worst < low < 0.97 and high == 1
    paired = from_probabilities(np.eye(2)[labels], labels, "ab", np.arange(20) // 2).intervals
    assert all(paired[name][0] < perfect[name][0] for name in ("macro_f1", "kappa")), "5 pairs say less than 10 images"
    one_class = from_probabilities(np.eye(2)[np.zeros(20, int)], labels, "ab")
    for name in ("macro_f1", "kappa"):
        low, high = one_class.intervals[name]
        assert low <= one_class[name] <= high and high - low > 0.05
    many = np.repeat(np.arange(10), 6)  # nine classes right: their drawn recalls alone would end below the value
    predicted = np.where(np.arange(60) == 0, 1, many)
    evaluation = from_probabilities(np.eye(10)[predicted], many, "abcdefghij")
    low, high = evaluation.intervals["macro_f1"]
    assert low < 0.92 < evaluation["macro_f1"] < 0.995 < high
    confusion, alone = np.array([[8, 0, 0], [3, 0, 1], [2, 2, 4]]), np.arange(20)
    probabilities = np.eye(3)[np.repeat([0, 0, 2, 0, 1, 2], [8, 3, 1, 2, 2, 4])]
    predictions = Predictions.from_probabilities(probabilities, np.repeat([0, 1, 2], confusion.sum(1)))
    resampled = bootstrap(predictions, alone, True)
    assert resampled.predicted.sum(1) == pytest.approx(20) and (resampled.predicted >= resampled.hits - 1e-9).all()
    assert resampled.hits[:, :2].mean(0) == pytest.approx([8 * 8.5 / 9, 4 * 0.5 / 5], abs=0.1)


def test_the_interval_of_balanced_accuracy_covers_the_truth():
    generator, truth, covered, rounds = np.random.default_rng(0), np.linspace(0.8, 1, 5), 0, 200
    for _ in range(rounds):
        hits = generator.binomial(20, truth)
        low, high = mean_recall(Counts(np.full(5, 20), hits, hits)) or (0.0, 1.0)
        covered += low <= truth.mean() <= high
    assert 0.9 * rounds < covered


def test_top_k_accuracy():
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1]] * 4)
    evaluation = from_probabilities(probabilities, np.arange(4), list("abcd"))
    assert [evaluation[name] for name in ("accuracy", "top2_accuracy", "top3_accuracy")] == [0.25, 0.5, 0.75]
    ties = from_probabilities(np.full((4, 4), 0.25), np.arange(4), list("abcd"))
    assert [ties[name] for name in ("accuracy", "top2_accuracy", "top3_accuracy")] == [0.25, 0.5, 0.75]


def test_a_metric_that_is_not_finite_is_named():
    metric = METRICS.get("accuracy")
    with pytest.raises(ValueError, match="metric accuracy is nan"):
        metric.checked(float("nan"))


def copies(count=4):
    """Predictions of 40 images of two classes, 30 of them correct, and the same of `count` copies of each image."""
    labels, predicted = np.repeat([0, 1], 20), np.repeat([0, 1, 1, 0], [16, 4, 14, 6])
    probabilities = np.eye(2)[predicted] * 0.8 + 0.1
    groups = np.arange(40)
    return (probabilities, labels, groups), tuple(np.repeat(each, count, 0) for each in (probabilities, labels, groups))


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "kappa"])
def test_copies_of_images_do_not_make_an_interval_narrow(name):
    (probabilities, labels, groups), (many, many_labels, many_groups) = copies()
    alone = from_probabilities(probabilities, labels, "ab")
    assert from_probabilities(probabilities, labels, "ab", groups).intervals == alone.intervals
    together = from_probabilities(many, many_labels, "ab", many_groups).intervals[name]
    assert together == pytest.approx(alone.intervals[name], abs=0.02)
    low, high = from_probabilities(many, many_labels, "ab").intervals[name]
    assert high - low < 0.7 * (together[1] - together[0])


def test_groups_of_different_sizes_and_classes_are_resampled_whole():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    groups = np.array([7, 7, 7, 2, 7, 3, 4, 5])  # group 7 has images of both classes
    assert clusters(labels, groups).tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert independent_images(labels, clusters(labels, groups), 3).tolist() == [1.6, 4, 0]
    predictions = Predictions.from_probabilities(np.eye(2)[[0, 0, 0, 1, 1, 1, 0, 1]], labels)
    resampled = bootstrap(predictions, clusters(labels, groups), False)
    assert set(np.round(resampled.hits[:, 0], 6)) == {0, 3, 4}  # both clusters: the one of three images, or the other
    assert resampled.support.tolist() == [4, 4] and (resampled.predicted.sum(1) == pytest.approx(8))


def test_one_class_that_takes_everything_has_an_interval_with_copies_too():
    labels = np.repeat(np.arange(10), 12)
    evaluation = from_probabilities(np.eye(10)[np.zeros(120, int)], labels, "abcdefghij", np.arange(120) // 2)
    wrong = wilson(0, 6)[1]
    assert evaluation.intervals["balanced_accuracy"] == pytest.approx((0.1 - wrong / 10, 0.1 + 3 * wrong / 10))

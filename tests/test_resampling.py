"""Metrics on resamples of the images: of many images a resample draws a part, with the same spread."""

from __future__ import annotations

import numpy as np
import pytest

from animalclf.metrics import Predictions, headline_metrics, resampling
from animalclf.metrics.intervals import clusters

CLASSES = 4


def predictions(count: int, rare: int = 0) -> tuple[Predictions, np.ndarray]:
    """`count` images in pairs of near-duplicates, the last class with `rare` images only."""
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(count // 2) % (CLASSES - 1), 2)
    labels[:rare] = CLASSES - 1
    logits = generator.standard_normal((count, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    table = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions.from_probabilities(table, labels), clusters(labels, np.arange(count) // 2)


def spreads(training: Predictions, cluster: np.ndarray) -> dict[str, float]:
    return {
        key: float(values.std())
        for key, values in resampling.resampled_metrics(training, headline_metrics(), cluster).items()
    }


def test_a_part_of_the_images_has_the_spread_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    training, cluster = predictions(6000, rare=20)
    whole = spreads(training, cluster)
    monkeypatch.setattr(resampling, "MAX_CLUSTERS", 600)
    part = spreads(training, cluster)
    assert len(whole) == len(headline_metrics()) and part != whole
    for key, spread in whole.items():  # 500 resamples know a spread to 3 %; the rare class dominates two of them
        assert part[key] == pytest.approx(spread, rel=0.15), key


def test_a_part_is_around_the_values_on_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    training, cluster = predictions(6000, rare=20)
    whole = resampling.resampled_metrics(training, headline_metrics(), cluster)
    monkeypatch.setattr(resampling, "MAX_CLUSTERS", 600)
    for key, values in resampling.resampled_metrics(training, headline_metrics(), cluster).items():
        assert values.mean() == pytest.approx(whole[key].mean(), abs=whole[key].std() / 3), key


def test_a_resample_never_has_more_images_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MAX_CLUSTERS", 100)
    sizes = []
    take = Predictions.take

    def counted(self: Predictions, pick: np.ndarray) -> Predictions:
        sizes.append(len(pick))
        return take(self, pick)

    monkeypatch.setattr(Predictions, "take", counted)
    training, cluster = predictions(4000, rare=2)
    values = resampling.resampled_metrics(training, headline_metrics(), cluster)
    assert max(sizes) <= 2 * (100 + CLASSES) and all(np.isfinite(column).all() for column in values.values())

"""Leaderboard: finished runs grouped by recipe, with their spread over seeds and the tests of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.inference.members import Validated, side_by_side
from animalclf.metrics import PRIMARY, Counts, Metric, Predictions, headline_metrics, significance
from animalclf.models import build
from animalclf.models.classifier import count_parameters
from animalclf.rows import (
    EnsembleResult,
    Evaluation,
    Leaderboard,
    LeaderboardPair,
    LeaderboardRow,
    Spread,
    TrainingResult,
)
from animalclf.runs import Run

RESAMPLES = 500
SIGNIFICANT = 0.05


def leaderboard(runs: Sequence[Run], ensembles: Sequence[EnsembleResult] = ()) -> Leaderboard:
    """Finished runs and ensembles, the best mean balanced accuracy first, and the test of every difference.

    The 95 % interval of a metric is of the mean over seeds and images (see metrics/significance.py); with one seed it covers the images alone, as in
    result.json. Runs of one name whose configurations differ in more than the seed become recipes of their own, named by what differs. Raises
    UserError naming the run that is not finished, is a second one of the same configuration and seed, or was not validated on the same images and
    classes.
    """
    if not runs and not ensembles:
        raise UserError("nothing to compare: name at least one finished run")
    validated = side_by_side([*runs, *(Run(result.run) for result in ensembles)])
    configs = [run.config() for run in runs]
    entries = []
    for name, members in _recipes(runs, configs).items():
        entries.append(
            (_model_row(name, [runs[number] for number in members], configs[members[0]], validated, members), members)
        )
    for number, result in enumerate(ensembles, start=len(runs)):
        entries.append((_ensemble_row(result, validated, number), [number]))
    entries.sort(key=lambda entry: -entry[0][PRIMARY].mean)
    rows = [row for row, _ in entries]
    return Leaderboard(
        images=len(validated.labels), classes=validated.classes, rows=rows, pairs=_pairs(entries, validated)
    )


def _pairs(entries: Sequence[tuple[LeaderboardRow, Sequence[int]]], validated: Validated) -> list[LeaderboardPair]:
    """The tests of all differences between rows, each with the positions of its runs in `validated`."""
    correct = validated.probabilities.argmax(2) == validated.labels
    tests = []
    for place, (better, of_better) in enumerate(entries):
        for worse, of_worse in entries[place + 1 :]:
            tests.append(
                (
                    better.recipe,
                    worse.recipe,
                    *significance.difference(correct[of_better], correct[of_worse], validated.labels),
                )
            )
    corrected = significance.holm([p_alone for *_, p_alone in tests])
    return [
        LeaderboardPair(
            better=better,
            worse=worse,
            difference=difference,
            low=low,
            high=high,
            p_alone=p_alone,
            p=p,
            significant=p < SIGNIFICANT,
        )
        for (better, worse, difference, low, high, p_alone), p in zip(tests, corrected, strict=True)
    ]


def _recipes(runs: Sequence[Run], configs: Sequence[Config]) -> dict[str, list[int]]:
    """The positions of the runs of each recipe, ordered by seed, under a name of its own."""
    flat = [pd.json_normalize(configuration.to_dict(config)).to_dict("records")[0] for config in configs]
    groups: list[list[int]] = []
    for number, mine in enumerate(flat):
        group = next((group for group in groups if {**flat[group[0]], "seed": 0} == {**mine, "seed": 0}), None)
        if group is None:
            groups.append([number])
            continue
        same = [other for other in group if flat[other]["seed"] == mine["seed"]]
        if same:
            raise UserError(
                f"{runs[number].root}: the same configuration and seed as {runs[same[0]].root}; it tells nothing new, leave one out"
            )
        group.append(number)
    named = {}
    for group in groups:
        first = flat[group[0]]
        rivals = [flat[other[0]] for other in groups if flat[other[0]]["name"] == first["name"]]
        differing = [key for key in first if key != "seed" and any(rival[key] != first[key] for rival in rivals)]
        named[" ".join([str(first["name"]), *(f"{key}={_short(first[key])}" for key in differing)])] = sorted(
            group, key=lambda n: flat[n]["seed"]
        )
    return named


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _model_row(
    name: str, runs: Sequence[Run], config: Config, validated: Validated, positions: Sequence[int]
) -> LeaderboardRow:
    results = [run.result() for run in runs]
    with torch.device("meta"):  # shapes without memory
        model = build(config.model, len(validated.classes), load_weights=False)
    seconds = [_seconds_to_best(run, result) for run, result in zip(runs, results, strict=True)]
    epochs = [float(result.best_epoch) for result in results]
    return LeaderboardRow(
        recipe=name,
        kind="model",
        seeds=[result.seed for result in results],
        runs=[run.root for run in runs],
        metrics=_metrics([result.val for result in results if result.val], validated, positions),
        best_epoch=_spread(epochs, min(epochs), max(epochs)),
        images_per_s=float(np.mean([result.images_per_s for result in results])),
        seconds_to_best=float(np.mean(seconds)),
        device_seconds_to_best=float(
            np.mean([spent * result.workers for spent, result in zip(seconds, results, strict=True)])
        ),
        parameters=count_parameters(model),
        trainable=count_parameters(model, trainable_only=True),
    )


def _ensemble_row(result: EnsembleResult, validated: Validated, position: int) -> LeaderboardRow:
    members = [_model_row("", [run], run.config(), validated, []) for run in map(Run, result.members)]
    return LeaderboardRow(
        recipe=result.name,
        kind="ensemble",
        seeds=[],
        runs=[result.run],
        metrics=_metrics([result.val], validated, [position]),
        best_epoch=None,
        images_per_s=None,
        seconds_to_best=sum(member.seconds_to_best for member in members),
        device_seconds_to_best=sum(member.device_seconds_to_best for member in members),
        parameters=sum(member.parameters for member in members),
        trainable=sum(member.trainable for member in members),
    )


def _seconds_to_best(run: Run, result: TrainingResult) -> float:
    return float(sum(row.seconds for row in run.metrics() if row.epoch <= result.best_epoch))


def _metrics(evaluations: Sequence[Evaluation], validated: Validated, positions: Sequence[int]) -> dict[str, Spread]:
    """Mean, spread and interval of each headline metric of trainings at `positions` with these evaluations."""
    if not positions:
        return {}
    trainings = [Predictions.of(validated.probabilities[position], validated.labels) for position in positions]
    metrics, spreads = headline_metrics(), {}
    resamples = [_resampled(training, metrics) for training in trainings]
    for metric in metrics:
        # A run folder of older code may lack a metric: it is computed from the probabilities.
        values = [
            evaluation.metrics.get(metric.key, metric.value(Counts.of(training.confusion), training))
            for evaluation, training in zip(evaluations, trainings, strict=True)
        ]
        if len(values) == 1 and metric.key in evaluations[0].intervals:
            low, high = evaluations[0].intervals[metric.key]
        else:
            resampled = np.stack([resample[metric.key] for resample in resamples], -1)
            low, high = significance.interval(np.array(values), resampled, len(validated.labels))
        lowest, highest = metric.bounds
        spreads[metric.key] = _spread(values, max(low, lowest), min(high, highest))
    return spreads


def _spread(values: list[float], low: float, high: float) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std, low=low, high=high, values=values)


def _resampled(predictions: Predictions, metrics: Sequence[Metric]) -> dict[str, np.ndarray]:
    """Each metric of one training, by key, on resamples of the images, each class's drawn anew: float64 (RESAMPLES,). The draws are the same for
    every training."""
    labels, generator = predictions.labels, np.random.default_rng(0)
    order = np.argsort(labels, kind="stable")
    size = np.bincount(labels)[labels[order]]
    start = np.searchsorted(labels[order], labels[order])
    of_predictions = [metric for metric in metrics if metric.of_predictions]
    counts, values = [], []
    for _ in range(RESAMPLES):
        pick = order[start + (generator.random(len(labels)) * size).astype(np.int64)]
        resample = predictions.take(pick)
        counts.append(Counts.of(resample.confusion))
        values.append([metric.of_predictions(resample) for metric in of_predictions if metric.of_predictions])
    stacked = Counts(
        counts[0].support, np.stack([one.predicted for one in counts]), np.stack([one.hits for one in counts])
    )
    columns = dict(zip([metric.key for metric in of_predictions], np.array(values).T, strict=True))
    return columns | {metric.key: metric.of_counts(stacked) for metric in metrics if metric.of_counts}

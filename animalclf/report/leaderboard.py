"""Leaderboard: finished runs grouped by recipe, with their spread over seeds and the tests of their differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.inference.validation import ValidationPredictions, validation_predictions
from animalclf.metrics import PRIMARY, Counts, Predictions, headline_metrics, significance
from animalclf.metrics.intervals import clusters
from animalclf.metrics.resampling import resampled_metrics
from animalclf.models import build
from animalclf.models.classifier import Classifier, count_parameters
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
from animalclf.training.checks import trains_on_features

SIGNIFICANT = 0.05


def leaderboard(runs: Sequence[Run], ensembles: Sequence[EnsembleResult] = ()) -> Leaderboard:
    """Finished runs and ensembles, sorted by mean balanced accuracy, the best first, and the test of each difference.

    The 95 % interval of a metric is of the mean over seeds and images (see metrics/significance.py); with one seed it
    covers the images alone, as in result.json. Runs of one name whose configurations differ in more than the seed are
    separate recipes, named by what differs.

    Raises UserError naming the run that is unfinished, repeats a configuration and seed, or was not validated on the
    same images and classes.
    """
    if not runs and not ensembles:
        raise UserError("nothing to compare: name at least one finished run")
    validated = validation_predictions([*runs, *(Run(result.run) for result in ensembles)])
    configs = [run.config() for run in runs]
    entries = []
    for name, positions in positions_of_recipes(runs, configs).items():
        members = [runs[position] for position in positions]
        entries.append((_model_row(name, members, configs[positions[0]], validated, positions), positions))
    for position, result in enumerate(ensembles, start=len(runs)):
        entries.append((_ensemble_row(result, validated, position), [position]))
    entries.sort(key=lambda entry: -entry[0][PRIMARY].mean)
    rows = [row for row, _ in entries]
    pairs = _pairs(entries, validated)
    return Leaderboard(images=len(validated.labels), classes=validated.classes, rows=rows, pairs=pairs)


def _pairs(
    entries: Sequence[tuple[LeaderboardRow, Sequence[int]]], validated: ValidationPredictions
) -> list[LeaderboardPair]:
    """The tests of all differences between rows, each with the positions of its runs in `validated`."""
    correct = validated.probabilities.argmax(2) == validated.labels
    tests = []
    for rank, (better, better_positions) in enumerate(entries):
        for worse, worse_positions in entries[rank + 1 :]:
            test = significance.difference(
                correct[better_positions], correct[worse_positions], validated.labels, validated.groups
            )
            tests.append((better.recipe, worse.recipe, *test))
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


def positions_of_recipes(runs: Sequence[Run], configs: Sequence[Config]) -> dict[str, list[int]]:
    """The positions of the runs of each recipe, sorted by seed, under a unique name. Raises UserError naming a run that
    repeats a configuration and seed."""
    flat = [pd.json_normalize(configuration.to_dict(config)).to_dict("records")[0] for config in configs]
    groups: list[list[int]] = []
    for position, keys in enumerate(flat):
        group = next((group for group in groups if {**flat[group[0]], "seed": 0} == {**keys, "seed": 0}), None)
        if group is None:
            groups.append([position])
            continue
        repeated = [member for member in group if flat[member]["seed"] == keys["seed"]]
        if repeated:
            raise UserError(
                f"{runs[position].root}: the same configuration and seed as {runs[repeated[0]].root}; leave one out"
            )
        group.append(position)
    positions_of = {}
    for group in groups:
        first = flat[group[0]]
        namesakes = [flat[members[0]] for members in groups if flat[members[0]]["name"] == first["name"]]
        differing = [key for key in first if key != "seed" and any(keys[key] != first[key] for keys in namesakes)]
        name = " ".join([str(first["name"]), *(f"{key}={_value_text(first[key])}" for key in differing)])
        positions_of[name] = sorted(group, key=lambda position: flat[position]["seed"])
    return positions_of


def _value_text(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _model_row(
    name: str, runs: Sequence[Run], config: Config, validated: ValidationPredictions, positions: Sequence[int]
) -> LeaderboardRow:
    results = [run.result() for run in runs]
    with torch.device("meta"):  # shapes without memory
        model = build(config.model, len(validated.classes), load_weights=False)
    seconds = [_seconds_to_best(run, result) for run, result in zip(runs, results, strict=True)]
    device_seconds = [spent * result.workers for spent, result in zip(seconds, results, strict=True)]
    parameters, trainable = _count_parameters(model, results)
    epochs = [float(result.best_epoch) for result in results]
    features = [_seconds_to_best(run, result, "features_seconds") for run, result in zip(runs, results, strict=True)]
    return LeaderboardRow(
        recipe=name,
        kind="model",
        seeds=[result.seed for result in results],
        runs=[run.root for run in runs],
        metrics=_metrics([result.val for result in results if result.val], validated, positions),
        best_epoch=None if config.train.heads else _spread(epochs, min(epochs), max(epochs)),
        images_per_s=float(np.mean([result.images_per_s for result in results])),
        seconds_to_best=float(np.mean(seconds)),
        device_seconds_to_best=float(np.mean(device_seconds)),
        parameters=parameters,
        trainable=trainable,
        measured=_join([result.measured for result in results]),
        features_seconds=float(np.mean(features)) if trains_on_features(config) else None,
    )


def _count_parameters(model: Classifier, results: Sequence[TrainingResult]) -> tuple[int, int]:
    """All parameters, and the trained ones: of fitted heads, which take the place of the model's head, the numbers in
    them, the mean of the runs."""
    heads = [head.numbers for result in results for head in result.heads or ()]
    if not heads or None in heads:
        return count_parameters(model), count_parameters(model, trainable_only=True)
    fitted = round(sum(filter(None, heads)) / len(results))
    return count_parameters(model) - count_parameters(model.head) + fitted, fitted


def _ensemble_row(result: EnsembleResult, validated: ValidationPredictions, position: int) -> LeaderboardRow:
    members = [_model_row("", [run], run.config(), validated, []) for run in map(Run, result.members)]
    features = [member.features_seconds for member in members if member.features_seconds is not None]
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
        measured=_ensemble_measurement([member.measured for member in members if member.measured]),
        features_seconds=sum(features) if features else None,
    )


def _ensemble_measurement(members: Sequence[str]) -> str:
    """How an ensemble is measured, from its members' measurements: its weights are cross-fitted in any case."""
    texts = list(dict.fromkeys(members))
    return f"{texts[0]}; cross-fitted" if len(texts) == 1 else f"cross-fitted; members: {' / '.join(texts)}"


def _join(texts: Sequence[str | None]) -> str:
    return " or ".join(text for text in dict.fromkeys(texts) if text)


def _seconds_to_best(run: Run, result: TrainingResult, column: str = "seconds") -> float:
    return float(sum(getattr(row, column) or 0.0 for row in run.metrics() if row.epoch <= result.best_epoch))


def _metrics(
    evaluations: Sequence[Evaluation], validated: ValidationPredictions, positions: Sequence[int]
) -> dict[str, Spread]:
    """Mean, spread and interval of each headline metric of trainings at `positions` with these evaluations."""
    if not positions:
        return {}
    trainings = [
        Predictions.from_probabilities(validated.probabilities[position], validated.labels) for position in positions
    ]
    spreads, cluster = {}, clusters(validated.labels, validated.groups)
    known = evaluations[0].intervals if len(trainings) == 1 else {}
    unknown = [metric for metric in headline_metrics() if metric.key not in known]
    resamples = [resampled_metrics(training, unknown, cluster) for training in trainings]
    for metric in headline_metrics():
        # A run folder of older code may lack a metric: it is computed from the probabilities.
        values = [
            evaluation.metrics.get(metric.key, metric.value(Counts.from_confusion(training.confusion), training))
            for evaluation, training in zip(evaluations, trainings, strict=True)
        ]
        if metric.key in known:
            low, high = known[metric.key]
        else:
            resampled = np.stack([resample[metric.key] for resample in resamples], -1)
            low, high = significance.interval(np.array(values), resampled, len(np.unique(cluster)))
        lowest, highest = metric.bounds
        spreads[metric.key] = _spread(values, max(low, lowest), min(high, highest))
    return spreads


def _spread(values: list[float], low: float, high: float) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std, low=low, high=high, values=values)

"""Who wins, and which differences are real: finished runs grouped by recipe, with their spread over seeds."""

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
from animalclf.metrics import classification, significance
from animalclf.models import build
from animalclf.models.classifier import count
from animalclf.runs import Run

FIGURES = ("balanced_accuracy", "accuracy", "macro_f1", "loss", "ece")
RESAMPLES = 500
REAL = 0.05


def leaderboard(runs: Sequence[Run], ensembles: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Finished runs, and what inference.ensemble.ensemble returned, as plain data: {"pictures", "classes", "rows", "pairs"}.

    `rows`, the best mean balanced accuracy first: recipe, kind ("model" or "ensemble"), seeds, runs (URLs), and for balanced_accuracy, accuracy,
    macro_f1, loss, ece: mean, std (over seeds, n - 1; None for one seed), low, high, values (in the order of the seeds). [low, high] is the 95 %
    interval of the mean over seeds and pictures (see significance.py); with one seed it covers the pictures alone, as in result.json. best_epoch
    has the same keys, with the smallest and largest as low and high. Means over seeds of pictures_per_s (in training), seconds_to_best (epochs up to
    the best one, with validation and the features of a frozen base) and device_seconds_to_best (times workers); parameters (as Keras counts them)
    and trainable. An ensemble has no seeds, best_epoch and pictures_per_s (None), and its members' sums of the others.

    `pairs`, for every two rows, the better first: a, b, difference (of balanced accuracy), low, high, p (corrected for the number of pairs by Holm),
    p_alone (not corrected), real (p < 0.05); see significance.difference.

    Runs of one name whose configurations differ in more than the seed become recipes of their own, named by what differs. Raises UserError naming
    the run that is not finished, is a second one of the same configuration and seed, or was not validated on the same pictures and classes.
    """
    if not runs and not ensembles:
        raise UserError("nothing to compare: name at least one finished run")
    together = side_by_side([*runs, *(Run(made["run"]) for made in ensembles)])
    configs = [run.config() for run in runs]
    entries = []
    for name, members in _recipes(runs, configs).items():
        entries.append((_model_row(name, [runs[number] for number in members], configs[members[0]], together, members), members))
    for number, made in enumerate(ensembles, start=len(runs)):
        entries.append((_ensemble_row(made, together, number), [number]))
    entries.sort(key=lambda entry: -entry[0]["balanced_accuracy"]["mean"])
    right = together.chances.argmax(2) == together.labels
    pairs = []
    for place, (better, mine) in enumerate(entries):
        for worse, others in entries[place + 1 :]:
            difference, low, high, p = significance.difference(right[mine], right[others], together.labels)
            pairs.append({"a": better["recipe"], "b": worse["recipe"], "difference": difference, "low": low, "high": high, "p_alone": p})
    for pair, p in zip(pairs, significance.holm([pair["p_alone"] for pair in pairs]), strict=True):
        pair |= {"p": p, "real": p < REAL}
    return {"pictures": len(together.labels), "classes": together.classes, "rows": [row for row, _ in entries], "pairs": pairs}


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
            raise UserError(f"{runs[number].root}: the same configuration and seed as {runs[same[0]].root}; it tells nothing new, leave one out")
        group.append(number)
    named = {}
    for group in groups:
        first = flat[group[0]]
        rivals = [flat[other[0]] for other in groups if flat[other[0]]["name"] == first["name"]]
        differing = [key for key in first if key != "seed" and any(rival[key] != first[key] for rival in rivals)]
        named[" ".join([str(first["name"]), *(f"{key}={_short(first[key])}" for key in differing)])] = sorted(group, key=lambda n: flat[n]["seed"])
    return named


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _model_row(name: str, runs: Sequence[Run], config: Config, together: Validated, positions: Sequence[int]) -> dict[str, Any]:
    results = [run.result() for run in runs]
    with torch.device("meta"):  # shapes without memory
        model = build(config.model, len(together.classes), load_weights=False)
    seconds = [_seconds_to_best(run, result) for run, result in zip(runs, results, strict=True)]
    epochs = [float(result["best_epoch"]) for result in results]
    return {
        "recipe": name,
        "kind": "model",
        "seeds": [result["seed"] for result in results],
        "runs": [run.root for run in runs],
        **_figures([result["val"] for result in results], together, positions),
        "best_epoch": _over_seeds(epochs, min(epochs), max(epochs)),
        "pictures_per_s": float(np.mean([result["pictures_per_s"] for result in results])),
        "seconds_to_best": float(np.mean(seconds)),
        "device_seconds_to_best": float(np.mean([spent * result["workers"] for spent, result in zip(seconds, results, strict=True)])),
        "parameters": count(model),
        "trainable": count(model, trainable_only=True),
    }


def _ensemble_row(made: dict[str, Any], together: Validated, position: int) -> dict[str, Any]:
    members = [_model_row("", [run], run.config(), together, []) for run in map(Run, made["members"])]
    sums = ("seconds_to_best", "device_seconds_to_best", "parameters", "trainable")
    return {
        "recipe": made["name"],
        "kind": "ensemble",
        "seeds": [],
        "runs": [made["run"]],
        **_figures([made["val"]], together, [position]),
        "best_epoch": None,
        "pictures_per_s": None,
        **{name: sum(member[name] for member in members) for name in sums},
    }


def _seconds_to_best(run: Run, result: dict[str, Any]) -> float:
    return float(sum(row["seconds"] for row in run.metrics() if row["epoch"] <= result["best_epoch"]))


def _figures(found: Sequence[dict[str, Any]], together: Validated, positions: Sequence[int]) -> dict[str, Any]:
    """Mean, spread and interval of each figure of trainings at `positions`; `found` has their validation results."""
    if not positions:
        return {}
    resampled = np.stack([_resampled(together.chances[position], together.labels) for position in positions], -1)
    figures = {}
    for name, columns in zip(FIGURES, resampled, strict=True):
        values = [float(result[name]) for result in found]
        if len(values) == 1 and name in found[0]["intervals"]:
            low, high = found[0]["intervals"][name]
        else:
            low, high = significance.interval(np.array(values), columns, len(together.labels))
        figures[name] = _over_seeds(values, max(low, 0.0), high if name == "loss" else min(high, 1.0))
    return figures


def _over_seeds(values: list[float], low: float, high: float) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "low": low, "high": high, "values": values}


def _resampled(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """FIGURES of one training on resamples of the pictures, each class's drawn anew: float64 (5, RESAMPLES). The same draws for every training."""
    classes, generator = chances.shape[1], np.random.default_rng(0)
    order = np.argsort(labels, kind="stable")
    size = np.bincount(labels, minlength=classes)[labels[order]]
    start = np.searchsorted(labels[order], labels[order])
    predicted, confidence = chances.argmax(1), chances.max(1)
    loss = -np.log(np.clip(chances[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1))
    code = labels * classes + predicted
    found = np.empty((len(FIGURES), RESAMPLES))
    for number in range(RESAMPLES):
        pick = order[start + (generator.random(len(labels)) * size).astype(np.int64)]
        figures = classification.from_confusion(np.bincount(code[pick], minlength=classes**2).reshape(classes, classes))
        ece = classification.calibration(confidence[pick], predicted[pick] == labels[pick])[1]
        found[:, number] = [figures["balanced_accuracy"], figures["accuracy"], figures["macro_f1"], loss[pick].mean(), ece]
    return found

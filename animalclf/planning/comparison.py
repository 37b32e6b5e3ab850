"""The plan of a comparison: the cost of its trials, and how many of their epochs ASHA is expected to train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from animalclf.planning.estimate import Setting
from animalclf.planning.images import Images, find_images
from animalclf.planning.plan import Request, plan, setting_of, without_download
from animalclf.rows import ComparisonPlan, TrialPlan
from animalclf.training import checks
from animalclf.training.resources import concurrent_trials
from animalclf.training.similar_runs import cost_key
from animalclf.tuning.spec import REDUCTION_FACTOR, ComparisonSpec, Trial, grace_epochs
from animalclf.tuning.spec_checks import check_models

SHARED = ("start", "Ray", "prepare", "end")  # phases that a comparison has once
CONCLUSION = 3.0  # leaderboard, ensembles and report, in starts of the command: most of either is imports
DRAWS = 50  # simulated comparisons


@dataclass(frozen=True, eq=False)
class Cost:
    """A trial and the setting of its estimate."""

    trial: Trial
    setting: Setting
    trials: int
    """That cost the same."""


def plan_comparison(
    spec: ComparisonSpec,
    data: str,
    folder: str,
    prepared_dir: str,
    request: Request,
    *,
    requested: int = 0,
    ended: Sequence[str] = (),
) -> ComparisonPlan:
    """The plan of the comparison of `spec`, in which the trials with the slugs `ended` are not trained again.
    `requested`: trials at a time. Raises UserError as `compare` does before it starts."""
    pending = [trial for trial in spec.trials if trial.slug not in ended]
    check_models(pending, with_files=True)
    count = max(0, spec.samples - len(ended)) if spec.searching else len(pending)
    costs = _costs(pending, count, spec, data, prepared_dir, request)
    machine = request.machine
    gpus = machine.gpus if request.use_gpu else 0
    concurrent = concurrent_trials(machine.cpus, gpus, len(machine.nodes), request.workers, requested)
    plans = [plan(cost.setting, data, folder, request.price_per_hour) for cost in costs]
    phases: dict[tuple[str, str], float] = {}
    for each in plans:
        for name in SHARED:
            key = (name, each.prepared if name == "prepare" else "")
            phases[key] = max(phases.get(key, 0.0), each.seconds.get(name, 0.0))
    shared = sum(phases.values()) + CONCLUSION * max((each.seconds["start"] for each in plans), default=0.0)
    rows, most, expected = [], 0.0, 0.0
    for cost, each in zip(costs, plans, strict=True):
        seconds = sum(value for name, value in each.seconds.items() if name not in SHARED)
        once = each.seconds.get("features", 0.0) if cost.setting.config.train.cache_features else 0.0
        epochs = each.seconds.get("epochs", 0.0)
        fraction = 1.0
        if spec.schedule == "asha":
            fraction = expected_fraction(count, cost.setting.config.train.epochs)
        most += once + cost.trials * (seconds - once)
        expected += once + cost.trials * (seconds - once - (1 - fraction) * epochs)
        rows.append(TrialPlan(cost.trial.name, cost.trials, seconds, each))
    total = shared + expected / concurrent
    used = min(concurrent, max(count, 1)) * (costs[0].setting.devices if costs else 1)
    hours = used * total / 3600
    price = request.price_per_hour
    return ComparisonPlan(
        comparison=folder,
        data=data,
        trials=count,
        concurrent=concurrent,
        schedule=spec.schedule,
        costs=rows,
        shared_seconds=shared,
        total_seconds=total,
        most_seconds=shared + most / concurrent,
        devices=used,
        device_hours=hours,
        price_per_hour=price,
        price=None if price is None else hours * price,
        problems=list(dict.fromkeys(problem for each in plans for problem in each.problems)),
    )


def _costs(
    pending: Sequence[Trial], count: int, spec: ComparisonSpec, data: str, prepared_dir: str, request: Request
) -> list[Cost]:
    """The pending trials, those that cost the same once. Trials that differ in their number of epochs share the
    rehearsal."""
    alike = Counter(cost_key(trial.config) for trial in pending)
    images: dict[object, Images] = {}
    settings: dict[str, Setting] = {}
    costs: dict[str, Cost] = {}
    for trial in pending:
        if (key := cost_key(trial.config)) in costs:
            continue
        config = checks.resolve_config(without_download(trial.config))
        if config.data not in images:
            images[config.data] = find_images(data, config, prepared_dir, spec.data_keys)
        found = images[config.data]
        config = replace(config, data=found.config.data)
        steps = cost_key(replace(config, train=replace(config.train, epochs=1)))
        if steps not in settings:
            settings[steps] = setting_of(found, config, request)
        costs[key] = Cost(trial, replace(settings[steps], config=config), count if spec.searching else alike[key])
    return list(costs.values())


def expected_fraction(trials: int, epochs: int) -> float:
    """The expected fraction of the epochs of `trials` trials that ASHA trains, one trial after another, whose ranks do
    not change from epoch to epoch. A trial stops at a rung unless it is in the best third of those that reached it
    (ray.tune.schedulers.ASHAScheduler)."""
    rungs = []
    rung = grace_epochs(epochs)
    while rung < epochs:
        rungs.append(rung)
        rung *= REDUCTION_FACTOR
    generator, trained = np.random.default_rng(0), 0.0
    for _ in range(DRAWS if trials else 0):
        reached: list[list[float]] = [[] for _ in rungs]
        for value in generator.random(trials):
            length = epochs
            for rung, earlier in zip(rungs, reached, strict=True):
                passes = not earlier or value >= np.quantile(earlier, 1 - 1 / REDUCTION_FACTOR)
                earlier.append(value)
                if not passes:
                    length = rung
                    break
            trained += length
    return trained / (DRAWS * trials * epochs) if trials else 1.0

"""What would make a comparison void or ambiguous, said before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from animalclf import config as configuration
from animalclf.errors import UserError

if TYPE_CHECKING:
    from animalclf.tuning.space import Plan, Range, Trial

SHARED_DATA = ("data.stored_size", "data.store")  # the only data settings in which the trials of a comparison may differ


def check_given(common: Mapping[str, Any], grid: Mapping[str, Any], ranges: Sequence[Range], samples: int, searcher: str) -> None:
    """Raises UserError where set, grid, search and samples contradict each other."""
    searched = {item.key for item in ranges}
    for key in ("seed", "name"):
        if key in {*common, *grid, *searched}:
            raise UserError(f"{key}: is not set in a comparison; use seeds for seeds, and `name` of a recipe for its label")
    twice = sorted((set(common) & set(grid)) | (searched & (set(common) | set(grid))))
    if twice:
        raise UserError(f"{twice[0]}: has a value in more than one of set, grid and search; leave it in one of them")
    if searched and not samples:
        raise UserError("search: how many trials? Give samples, for example --samples 20")
    if samples and not searched:
        raise UserError("samples: there is nothing to draw from; give search ranges, for example --search optim.lr=log:1e-5:1e-2")
    if searcher == "optuna" and not searched:
        raise UserError("searcher optuna: there is nothing to search; give search ranges, for example --search optim.lr=log:1e-5:1e-2")


def check_plan(plan: Plan) -> None:
    """Raises UserError for a trial that is there twice, trials that cannot be compared, and schedules that do not suit them."""
    seen: dict[str, Trial] = {}
    for trial in plan.trials:
        other = seen.setdefault(trial.slug, trial)
        if other is not trial:
            raise UserError(f"the trial {trial.name!r} with seed {trial.config.seed} is there twice; leave one out, or give one of them a `name`")
    unlabelled: dict[str, Trial] = {}
    for trial in plan.trials:
        other = unlabelled.setdefault(repr(replace(trial.config, name="")), trial)
        if other is not trial:
            raise UserError(f"{other.name!r} and {trial.name!r} are the same trial under two names; leave one out, or change a setting")
    first = plan.trials[0]
    for trial in plan.trials:
        changed = {text.partition(":")[0]: text for text in configuration.differences(first.config, trial.config)}
        apart = [changed[key] for key in changed if key.startswith("data.") and key not in SHARED_DATA]
        if apart:
            raise UserError(
                f"{first.name} and {trial.name} differ in {apart[0]}; all trials are judged on the same pictures: use `set` for all of them"
            )
        if "train.monitor" in changed:
            raise UserError(f"{first.name} and {trial.name} differ in {changed['train.monitor']}; a comparison needs one measure: use `set` for all")
    if plan.schedule == "asha":
        kinds = sorted({f"{trial.config.model.name} at {trial.config.model.input_size} px" for trial in plan.trials})
        if len(kinds) > 1:
            raise UserError(
                f"schedule asha: the trials are of different models ({', '.join(kinds)}); a slow starter would always be stopped, however good it "
                "ends. Stop early within one model, or compare with schedule none"
            )
        lengths = sorted({trial.config.train.epochs for trial in plan.trials})
        if len(lengths) > 1:
            raise UserError(f"schedule asha: the trials train for different numbers of epochs ({', '.join(map(str, lengths))}); give them one")
    if plan.searching and len(plan.trials) > 1:
        raise UserError("searcher optuna: searches one recipe with one seed and no grid; compare what it finds over seeds afterwards")
    for item in plan.search:
        if item.key.startswith("data."):
            raise UserError(
                f"searcher optuna: {item.key} is a setting of the prepared pictures, which are made before the search; use searcher random"
            )

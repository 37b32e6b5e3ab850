"""Checks of a comparison before any work: settings that contradict each other, and trials that cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.tuning.search_space import SearchRange
from animalclf.tuning.spec import ComparisonSpec, Trial
from animalclf.utils.text import printable

FREE_DATA_KEYS = ("data.stored_size", "data.store", "data.resize")  # the only data settings in which trials may differ


def check_settings(
    common: Iterable[str], grid: Iterable[str], ranges: Sequence[SearchRange], samples: int, searcher: str
) -> None:
    """Raises UserError if set, grid, search and samples contradict each other."""
    common, grid, searched = set(common), set(grid), {search_range.key for search_range in ranges}
    for key in ("seed", "name"):
        if key in common | grid | searched:
            raise UserError(
                f"{key}: cannot be set in a comparison; use `seeds` for the seeds, and `name` of a recipe for its label"
            )
    repeated = sorted((common & grid) | (searched & (common | grid)))
    if repeated:
        raise UserError(
            f"{printable(repeated[0])}: has a value in more than one of set, grid and search; leave it in one of them"
        )
    example = "for example --search optim.lr=log:1e-5:1e-2"
    if searched and not samples:
        raise UserError("samples: missing; give the number of trials to draw from search, for example --samples 20")
    if samples and not searched:
        raise UserError(f"samples: there are no search ranges to draw from; add some, {example}")
    if searcher == "optuna" and not searched:
        raise UserError(f"searcher optuna: there are no search ranges; add some, {example}")


def check_trials(spec: ComparisonSpec) -> None:
    """Raises UserError for a repeated trial and for trials that are not comparable."""
    by_slug: dict[str, Trial] = {}
    by_settings: dict[str, Trial] = {}
    for trial in spec.trials:
        if by_slug.setdefault(trial.slug, trial) is not trial:
            seed = trial.config.seed
            raise UserError(
                f"trial {trial.name!r} with seed {seed} is repeated; leave it out, or give it another `name`"
            )
    for trial in spec.trials:
        earlier = by_settings.setdefault(repr(replace(trial.config, name="")), trial)
        if earlier is not trial:
            names = f"{earlier.name!r} and {trial.name!r}"
            raise UserError(f"{names} are the same trial under two names; leave one out, or change a setting")
    first = spec.trials[0]
    for trial in spec.trials:
        names = f"{first.name} and {trial.name}"
        changed = {line.partition(":")[0]: line for line in configuration.differences(first.config, trial.config)}
        different = [changed[key] for key in changed if key.startswith("data.") and key not in FREE_DATA_KEYS]
        if different:
            raise UserError(
                f"{names} differ in {different[0]}; trials are validated on the same images: use `set` for all"
            )
        if "train.monitor" in changed:
            raise UserError(
                f"{names} differ in {changed['train.monitor']}; a comparison needs one metric: use `set` for all"
            )
        if "train.folds" in changed:
            raise UserError(
                f"{names} differ in {changed['train.folds']}; trials are measured on the same images: use `set` for all"
            )


def check_schedule(spec: ComparisonSpec) -> None:
    """Raises UserError for a schedule or a searcher that does not fit the trials."""
    if spec.trials[0].config.train.folds and (spec.searching or spec.schedule == "asha"):
        name = "searcher optuna" if spec.searching else "schedule asha"
        raise UserError(f"{name}: not with train.folds (--folds), whose trainings are not validated in each epoch")
    if spec.schedule == "asha":
        models = sorted({f"{trial.config.model.name} at {trial.config.model.input_size} px" for trial in spec.trials})
        if len(models) > 1:
            raise UserError(
                f"schedule asha: the trials have different models ({', '.join(models)}), and ASHA would always stop a "
                "model that starts slowly; compare different models with schedule none"
            )
        lengths = sorted({trial.config.train.epochs for trial in spec.trials})
        if len(lengths) > 1:
            listed = ", ".join(map(str, lengths))
            raise UserError(
                f"schedule asha: the trials have different numbers of epochs ({listed}); use one train.epochs for all"
            )
    if spec.searching and len(spec.trials) > 1:
        raise UserError(
            "searcher optuna: takes one recipe, one seed and no grid; compare its best trials over seeds afterwards"
        )
    for search_range in spec.search:
        if search_range.key.startswith("data."):
            raise UserError(
                f"searcher optuna: {search_range.key} belongs to the prepared images, which exist before the search; "
                "use searcher random"
            )


def check_models(trials: Sequence[Trial], classes: int = 2, *, with_files: bool = False) -> None:
    """Raise UserError for a model that cannot be built, and for a file of weights that does not fit, in `trials`
    (`with_files`: in those with a file of weights)."""
    from animalclf.training import launch

    if with_files:
        trials = [trial for trial in trials if trial.config.model.weights_file]
    models = {(trial.config.model, trial.config.train.heads, trial.config.augment): trial for trial in trials}
    for trial in models.values():
        try:
            launch.check_model(trial.config, classes, load_weights=True)
        except UserError as error:
            file = trial.config.model.weights_file
            if not file or len({other.config.model.name for other in trials if other.config.model.weights_file}) < 2:
                raise
            remedy = "--set applies to all recipes; set a key of one recipe in a comparison file (--file)"
            raise UserError(f"{trial.name}: {error}; {remedy}") from error

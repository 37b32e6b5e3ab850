"""What a training or a comparison will take, before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from animalclf.api.calls import PathLike, Settings, output_folder, overrides, public
from animalclf.errors import UserError

if TYPE_CHECKING:
    from animalclf.rows import ComparisonPlan, TrainingPlan


@public
def plan_training(
    data: PathLike,
    *,
    recipe: str | None = None,
    out: PathLike | None = None,
    prepared: PathLike | None = None,
    set: Settings | None = None,
    limit: int = 0,
    folds: int = 0,
    corrections: PathLike | None = None,
    workers: int | str = 0,
    cpu: bool = False,
    resume: bool = False,
    local: bool = False,
    price_per_hour: float | None = None,
) -> TrainingPlan:
    """What `train` with these arguments will take: images, parameters, steps, memory, bytes read and written, and time,
    from a rehearsal of the training on a sample of the images. Nothing is written outside a temporary folder; a
    running cluster is asked, and one of its workers rehearses.

    `price_per_hour`: of one device, which is a GPU, or a node if there are none; the plan's `price` is in its currency.
    The other arguments: see `train`. `.problems` of the plan lists what does not fit into memory, and what to change.
    """
    from animalclf import config as configuration
    from animalclf.planning.images import find_images
    from animalclf.planning.machine import find_machine
    from animalclf.planning.plan import Request, plan, setting_of, without_download, worker_count
    from animalclf.training import checks
    from animalclf.training.resources import Workers
    from animalclf.utils import storage

    number, settings = Workers.parse(str(workers)), overrides(set, limit, folds, corrections)
    if resume and not out:
        raise UserError("--resume needs --out: the run folder to continue")
    recipe = recipe or (resume and checks.recipe_of_run(str(out))) or "quick"
    config = configuration.load(recipe, settings)
    if not resume:
        checks.check_name(config.name)
    folder = output_folder(out, config.name)
    run = checks.check_run_folder(folder, resume)
    config = checks.resolve_config(without_download(config))
    stored_in = str(prepared or storage.join(os.path.dirname(folder), "prepared"))
    images = find_images(str(data), config, stored_in, settings)
    machine = find_machine(number.maximum)
    request = Request(machine, worker_count(number, machine, local, cpu), local, cpu)
    checks.check_resumable(run, images.config, resume)
    setting = setting_of(images, images.config, request, done_epochs=len(run.metrics()))
    return plan(setting, str(data), folder, price_per_hour)


@public
def plan_comparison(
    data: PathLike,
    *,
    recipes: Sequence[PathLike | Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    set: Settings | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    search: Mapping[str, Any] | None = None,
    samples: int = 0,
    searcher: str | None = None,
    schedule: str | None = None,
    file: PathLike | None = None,
    out: PathLike | None = None,
    prepared: PathLike | None = None,
    limit: int = 0,
    folds: int = 0,
    workers: int = 0,
    cpu: bool = False,
    max_concurrent: int = 0,
    resume: bool = False,
    price_per_hour: float | None = None,
) -> ComparisonPlan:
    """What `compare` with these arguments will take: the cost of each kind of trial from its rehearsal, and the time
    of all of them; with `schedule="asha"` the expected time, and the most it can be. Nothing is written.

    `price_per_hour`: see `plan_training`. The other arguments: see `compare`.
    """
    from animalclf.planning import comparison
    from animalclf.planning.machine import find_machine
    from animalclf.planning.plan import Request, worker_count
    from animalclf.training.resources import Workers
    from animalclf.tuning.comparison_dir import ENDED, open_folder
    from animalclf.tuning.spec_parsing import build_spec, comparison_tree
    from animalclf.utils import storage

    if resume and not out:
        raise UserError("--resume needs --out: the comparison folder to continue")
    described = {"recipes": recipes, "seeds": seeds, "grid": grid, "search": search}
    described |= {"samples": samples, "searcher": searcher, "schedule": schedule}
    spec = build_spec(comparison_tree(str(file or ""), set=overrides(set, limit, folds), **described))
    folder = output_folder(out, "compare")
    stored = open_folder(folder, resume)
    ended = [entry.slug for entry in stored.entries if entry.state in ENDED] if stored else []
    machine = find_machine(workers)
    count = worker_count(Workers.fixed(workers or 1), machine, False, cpu)
    request = Request(machine, count, cpu=cpu, price_per_hour=price_per_hour)
    prepared_dir = str(prepared or storage.join(os.path.dirname(folder), "prepared"))
    return comparison.plan_comparison(
        spec, str(data), folder, prepared_dir, request, requested=max_concurrent, ended=ended
    )

"""Checks before any work: the configuration, the run folder, the prepared set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from animalclf import architectures
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.augment import is_identity
from animalclf.data.folds import check_folds, image_folds
from animalclf.data.prepared_set import FORMAT, Prepared, is_prepared, open_prepared
from animalclf.errors import UserError
from animalclf.lr_schedules import LR_SCHEDULES
from animalclf.runs import Run
from animalclf.training.best_epoch import out_of_patience
from animalclf.training.losses import LOSSES
from animalclf.utils import storage
from animalclf.utils.redact import has_credentials, redact
from animalclf.utils.text import count_clause, cut, shown

if TYPE_CHECKING:
    from animalclf.prepare.sources import Source

# Keys of `train` that a resume may change: they decide how a step is executed, not what it computes.
EXECUTION_KEYS = ("profile", "compile", "compile_from", "cuda_graphs", "cache_features")
MAX_NAME_BYTES = 200  # of the name of a run folder, to which the time is added


def trains_on_features(config: Config) -> bool:
    """Whether the epochs of such a training see cached features in place of images, by the configuration alone: no
    layer of the base trains (`Classifier.frozen_features`) and nothing is augmented."""
    frozen_base = all(name.partition(".")[0] in ("head", "none") for name in config.model.trainable)
    return frozen_base and is_identity(config.augment)


def check_name(name: str) -> None:
    """Raises UserError for the `name` of a new run that is empty or a path: run folders and reports are named after
    it."""
    wrong = not name.strip() or name in (".", "..") or not name.isprintable() or set(name) & {"/", "\\"}
    if wrong or len(name.encode()) > MAX_NAME_BYTES:
        raise UserError(
            f"name: {shown(name)} is not the name of a run; use text without / and \\, as in --set name=vgg_2"
        )


def resolve_config(config: Config) -> Config:
    """Check the names of loss and model and the pretrained weights. Returns `config` with the absolute path of the
    weights, because workers have other working directories.

    Raises UserError for a secret in a value, an unknown loss or model, and for weights that are missing or cannot be
    downloaded.
    """
    check_no_secrets(config)
    LOSSES.get(config.train.loss)
    if config.model.name not in architectures.OWN:  # the models import PyTorch, which takes seconds
        from animalclf.models.registry import builder

        builder(config.model.name)
    source = config.model.weights
    if source == "none":
        return config
    from animalclf.models import weights

    weights.check(config.model.name, source)
    file = config.model.weights_file
    return replace(config, model=replace(config.model, weights=storage.absolute(file))) if file else config


def check_no_secrets(config: Config) -> None:
    """Raise UserError for a value that holds a secret: run folders and reports have all values."""
    for key, value in configuration.flatten(configuration.to_dict(config)).items():
        is_address = key == "model.weights" and has_credentials(str(value))  # refused with its remedy when it is read
        if redact(str(value)) != str(value) and not is_address:
            raise UserError(
                f"{key}: holds a secret ({cut(redact(str(value)))}), which run folders and reports would show; "
                "write another value"
            )


def recipe_of_run(out: str) -> str:
    """The path of the configuration of the run in `out`; empty if there is no run. Raises UserError for a damaged one,
    of which a recipe would take a part."""
    run = Run(storage.absolute(out))
    if not run.exists():
        return ""
    run.config()
    return run.url("config.yaml")


def check_run_folder(out: str, resume: bool) -> Run:
    """The run folder `out`, checked before the images are read. Raises UserError for a file, a folder in use, an
    existing run without `resume`, and nothing to resume."""
    run = Run(storage.absolute(out))
    if storage.is_file(run.root):
        raise UserError(f"{out}: is a file; choose another --out")
    if run.exists() and not resume:
        raise UserError(f"{out}: already contains a run; continue it with --resume, or choose another --out")
    if resume and not run.exists():
        raise UserError(f"{out}: no run to resume (config.yaml is missing); start it without --resume")
    run.check_unlocked()
    return run


def lock_run(out: str, config: Config, resume: bool, same_length: bool = False) -> Run:
    """Lock the run folder `out` for this process.

    Raises UserError as `check_run_folder`, and for a configuration that differs from the run's: in more than the length
    of the training, or (`same_length`) at all.
    """
    run = check_run_folder(out, resume)
    check_resumable(run, config, resume, same_length)
    run.lock()
    return run


def check_resumable(run: Run, config: Config, resume: bool, same_length: bool = False) -> None:
    """Raises UserError as `lock_run` for a configuration that differs from the run's."""
    changes = config_changes(run.config(), config) if resume else []
    if changes and (same_length or not can_extend(run, config)):
        raise UserError(
            f"{run.root}: the configuration differs from the run's ({'; '.join(changes)}); "
            "resume without these changes, or choose another --out"
        )


def config_changes(stored: Config, config: Config) -> list[str]:
    """What a resume with `config` would change in what is trained, as `key: old -> new`."""
    execution = {name: getattr(stored.train, name) for name in EXECUTION_KEYS}
    return configuration.differences(stored, replace(config, train=replace(config.train, **execution)))


def can_extend(run: Run, config: Config) -> bool:
    """Whether `config` extends the run: only `train.epochs`, `train.patience` and execution keys differ.

    Raises UserError for a run with folds, whose checkpoints are gone, and if the finished epochs do not fit the new
    length: with it they would have been computed differently, or training would have ended before the last of them.
    """
    stored, epochs, history = run.config(), config.train.epochs, run.metrics()
    extension_keys = {"train.epochs", "train.patience", *(f"train.{name}" for name in EXECUTION_KEYS)}
    changed_keys = configuration.changed_keys(stored, config).keys()
    changes, schedule = f"{run.root}: {'; '.join(config_changes(stored, config))}", config.optim.schedule
    if stored.train.folds and changed_keys & {"train.epochs", "train.patience", "train.folds"}:
        raise UserError(
            f"{changes}: a run with folds cannot be extended, because a fold that has ended has no checkpoints; resume "
            "without this change, or choose another --out"
        )
    if not changed_keys <= extension_keys:
        return False
    if epochs != stored.train.epochs and LR_SCHEDULES.get(schedule).depends_on_epochs:
        raise UserError(
            f"{changes}: with optim.schedule={schedule} the learning rate of every epoch depends on it; start a new run"
        )
    if epochs < len(history):
        raise UserError(
            f"{changes}: {count_clause(len(history), 'epoch', 'are finished')}; resume with "
            f"train.epochs={len(history)} or more"
        )
    last = next((done for done in range(1, len(history) + 1) if out_of_patience(history[:done], config)), epochs)
    if last < len(history) or (last < epochs and run.finished()):
        raise UserError(
            f"{changes}: with train.patience={config.train.patience} training ends with epoch {last}; "
            "resume with a larger train.patience"
        )
    return True


def open_or_prepare(
    data: str, config: Config, prepared_dir: str, explicit_keys: Collection[str] = (), workers: int = 0
) -> tuple[Prepared, Config]:
    """Open the prepared set `data`, or prepare the images `data` below `prepared_dir`. A set that exists there is
    reused, and so is `prepared_dir` itself if it is a prepared set of these images. Returns the set, and `config` with
    its data settings. If Ray has to be started for that, it has room for `workers` training workers.

    Raises UserError if a prepared set contradicts the recipe: images stored too small, or another value of a
    `data.` key in `explicit_keys`; and for images that cannot be dealt to `train.folds`.
    """
    prepared, config = _open_or_prepare(data, config, prepared_dir, explicit_keys, workers)
    if config.train.folds:
        image_folds(prepared, config)
    return prepared, config


def set_to_prepare(data: str, config: Config, prepared_dir: str) -> tuple[Source, str] | None:
    """The images `data` and the folder of their prepared set, which exists if it was prepared before. None if `data` or
    `prepared_dir` is a prepared set itself. Raises UserError for images that cannot be found, or dealt to
    `train.folds`."""
    if is_prepared(data) or is_prepared(prepared_dir):
        return None
    from animalclf.prepare import sources

    source = sources.find(data, config.data)
    if config.train.folds:
        counts = {str(name): count for name, count in source.files["label"].value_counts().items()}
        check_folds(data, config.train.folds, counts, set(source.files["split"]))
    return source, storage.join(prepared_dir, f"{sources.inputs_hash(source, config.data)[:12]}-{FORMAT}")


def _open_or_prepare(
    data: str, config: Config, prepared_dir: str, explicit_keys: Collection[str], workers: int
) -> tuple[Prepared, Config]:
    if planned := set_to_prepare(data, config, prepared_dir):
        from animalclf.prepare.job import prepare

        source, folder = planned
        return prepare(source, folder, config.data, workers=workers), config
    return open_existing(data, config, prepared_dir, explicit_keys)


def open_existing(
    data: str, config: Config, prepared_dir: str, explicit_keys: Collection[str] = ()
) -> tuple[Prepared, Config]:
    """The prepared set `data`, or if that is none `prepared_dir`, a set of these images; and `config` with its data
    settings. Raises UserError as `open_or_prepare`."""
    if not is_prepared(data):
        _check_same_images(prepared_dir, data)
        data = prepared_dir
    prepared = open_prepared(data)
    if prepared.stored_size < config.model.input_size:
        raise UserError(
            f"{data}: images are stored at {prepared.stored_size} px, the recipe {config.name} needs "
            f"{config.model.input_size} px; prepare them again with --recipe {config.name}"
        )
    stored = replace(configuration.data_from_dict(prepared.info["config"]), limit=config.data.limit)
    changed = configuration.changed_keys(replace(config, data=stored), config)
    contradictions = [f"{key}: {old} -> {new}" for key, (old, new) in changed.items() if key in explicit_keys]
    if config.data.corrections and "data.corrections" in explicit_keys and not stored.corrections:
        raise UserError(
            f"{data}: is prepared without corrections, which are applied to the images; name the images as --data "
            f"({prepared.info.get('source')}), or prepare them again with --corrections"
        )
    if contradictions:
        raise UserError(
            f"{data}: was prepared with other settings ({'; '.join(contradictions)}); prepare it again, or leave out "
            "these --set"
        )
    return prepared, replace(config, data=stored)


def _check_same_images(prepared_dir: str, data: str) -> None:
    """Raise UserError unless the prepared set `prepared_dir` was made of the images `data` as they are."""
    from animalclf.prepare import sources
    from animalclf.prepare.manifest import differences

    prepared = open_prepared(prepared_dir)
    settings = configuration.data_from_dict(prepared.info["config"])
    source = sources.find(data, settings)
    if prepared.info["inputs"] != sources.inputs_hash(source, settings):
        raise UserError(
            f"{prepared_dir}: is a prepared set of other images than {data} "
            f"({differences(prepared, source, settings)}); name another folder, or use the set with --data"
        )

"""How long a training or a comparison will take, from the finished runs beside its folder: of the same costs, on the
same machine."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.prepare import output_dir
from animalclf.prepare.output_dir import FEATURES
from animalclf.rows import TrainingResult
from animalclf.runs import Run
from animalclf.training.checks import trains_on_features
from animalclf.utils import storage
from animalclf.utils.console import duration

MAX_RUNS = 8  # the latest, so that the search takes a tenth of a second
MAX_RATIO = 2.0  # of the numbers of images: of others the time does not follow


@dataclass(frozen=True)
class Expectation:
    """The seconds of all remaining epochs, and the run that they are known from."""

    seconds: float
    run: str
    features: float = 0.0
    """Of `seconds`, for features that the next training on the same base finds stored."""

    @property
    def text(self) -> str:
        """For the plan line."""
        return f"about {duration(self.seconds)} of training, from the time of {os.path.basename(self.run)}"


def cost_key(config: Config) -> str:
    """What a training costs depends on, as text: not on the seed, the learning rate and the like."""
    model, optim = config.model, config.optim
    train = replace(config.train, loss="cross_entropy", balance="none", monitor="balanced_accuracy", max_failures=0)
    model = replace(model, dropout=0.0, batchnorm_momentum=0.9)
    averages = [bool(value) for value in (optim.ema, optim.l2_sp, optim.wise_ft)]
    return repr((model, config.data, config.augment, train, optim.name, averages))


def expectation(
    run: Run, config: Config, prepared: Prepared, images: int, workers: str, gpu: bool, beside: str = ""
) -> Expectation | None:
    """What the training of `run` on `images` training images is expected to take; None without a similar run. Reads a
    few small files beside a local run folder, and beside the folder `beside`."""
    if storage.is_remote(run.root):
        return None
    for folder in _latest(run.root) + (_latest(beside) if beside else []):
        try:
            known = _expectation(Run(folder), config, prepared, images, workers, gpu)
        except (UserError, OSError):  # of an older version, or removed meanwhile
            continue
        if known:
            left = max(0, config.train.epochs - len(run.metrics())) / config.train.epochs
            return replace(known, seconds=known.seconds * left)
    return None


def comparison_expectation(
    trials: Sequence[tuple[Run, Config, Prepared]], out: str, workers: str, gpu: bool, concurrent: int
) -> Expectation | None:
    """What the trials of a comparison in the folder `out` are expected to take, `concurrent` at a time; None if a
    similar run is missing for one of them. Those that cost the same share their features."""
    alike = Counter((cost_key(config), prepared.root) for _, config, prepared in trials)
    total, known = 0.0, None
    for run, config, prepared in trials:
        if not (count := alike.pop((cost_key(config), prepared.root), 0)):
            continue
        images = len(sampling_plan(prepared, config).rows["train"])
        known = expectation(run, config, prepared, images, workers, gpu, beside=out)
        if not known:
            return None
        total += count * known.seconds - (count - 1) * known.features
    return known and replace(known, seconds=total / concurrent, features=0.0)


def _latest(root: str) -> list[str]:
    """The latest finished runs beside the run folder `root`."""
    parent = os.path.dirname(root)
    try:
        with os.scandir(parent) as entries:
            paths = [os.path.join(entry.path, "result.json") for entry in entries if entry.is_dir()]
        finished = {path: os.path.getmtime(path) for path in paths if os.path.isfile(path)}
    except OSError:
        return []
    folders = [os.path.dirname(path) for path in sorted(finished, key=lambda path: -finished[path])]
    return [folder for folder in folders if folder != root][:MAX_RUNS]


def _expectation(
    similar: Run, config: Config, prepared: Prepared, images: int, workers: str, gpu: bool
) -> Expectation | None:
    """Of all epochs of `config`, from a run; None if it is not similar."""
    environment = similar.environment()
    there = (environment.host, environment.cpus, str(environment.workers), environment.gpu)
    if there != (socket.gethostname(), os.cpu_count(), workers, gpu):
        return None
    stored, result = similar.config(), similar.result()
    if _key(stored) != _key(config) or not result.epochs:
        return None
    ratio = images / max(1, result.rows.get("train", 0))
    if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        return None
    features = _feature_seconds(result)
    seconds = (result.seconds - features) * ratio * config.train.epochs / result.epochs
    if trains_on_features(config) and not (environment.data_fingerprint == prepared.fingerprint and _stored(prepared)):
        if not features:  # it read them from a cache that these images do not have
            return None
        return Expectation(seconds + features * ratio, similar.root, features * ratio)
    return Expectation(seconds, similar.root)


def _stored(prepared: Prepared) -> bool:
    """Whether the prepared set has features of some base."""
    return any(fnmatch(name, FEATURES) for name in output_dir.file_names(prepared.root))


def _feature_seconds(result: TrainingResult) -> float:
    return result.time.features if result.time else 0.0


def _key(config: Config) -> str:
    """The cost of an epoch: also the path of the weights does not matter."""
    train = replace(config.train, epochs=1, patience=0)
    model = replace(config.model, weights="none" if config.model.weights == "none" else "imagenet")
    return cost_key(replace(config, name="", train=train, model=model))

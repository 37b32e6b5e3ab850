"""The commands that are interrupted: what each is given, what must be true of its files at any instant, and what a
finished one has written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from helpers import tiny_prepared, without_times
from PIL import Image
from torch import nn

from animalclf.data import prepared_set, shards
from animalclf.models import MODELS
from animalclf.models.classifier import Classifier
from animalclf.prepare import job
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.tuning.comparison_dir import read_comparison
from animalclf.utils import storage

EPOCHS = 4
SETTINGS = {
    "model.name": "tiny",
    "model.input_size": 32,
    "data.stored_size": 40,
    "train.epochs": EPOCHS,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "optim.lr": 0.01,
}
Facts = Any  # what a finished command has written, without times


def register_tiny_model() -> None:
    """A model whose epochs take milliseconds, called tiny."""

    @MODELS.register("tiny")
    def tiny(spec: Any, classes: int, load_weights: bool) -> Classifier:
        layers = (
            ("conv", nn.Conv2d(3, 8, 3, stride=4)),
            ("norm", nn.BatchNorm2d(8)),
            ("relu", nn.ReLU()),
            ("pool", nn.AdaptiveAvgPool2d(2)),
            ("flatten", nn.Flatten()),
        )
        head = nn.Sequential(OrderedDict(logits=nn.Linear(32, classes)))
        base = nn.Sequential(OrderedDict(layers))
        return Classifier(base, head, (0, 0, 0), (1, 1, 1), spec.input_size, classes)

    MODELS.origins["tiny"] = "animalclf"  # this process has the workers of a comparison, too


def flags(settings: dict[str, Any]) -> list[str]:
    return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]


class Scenario(ABC):
    """A command whose output is below `out`. `inputs`: a folder for what several runs of it share."""

    name: str
    failed_code = 2
    """Exit code if its disk is full."""

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs

    def create_inputs(self) -> None:  # noqa: B027  (some need none)
        """Called once, in a process of its own."""

    @abstractmethod
    def arguments(self, out: Path) -> list[str]:
        """The command line that starts, or continues, what `out` has."""

    @abstractmethod
    def facts(self, out: Path) -> Facts:
        """Of a finished command."""

    @abstractmethod
    def check(self, out: Path, expected: Facts) -> Any:
        """Of an interrupted one: raise if a file is damaged or what looks finished differs from `expected`. Returns
        what the next start must not change."""

    def check_continued(self, out: Path, before: Any) -> None:  # noqa: B027  (most start from the beginning)
        """Raise AssertionError if a continued command has changed `before`."""


class Train(Scenario):
    name = "train"
    settings = SETTINGS

    @cached_property
    def prepared(self) -> str:
        return str(self.inputs / "set")

    def create_inputs(self) -> None:
        tiny_prepared(self.inputs / "set", (21, 16, 8))

    def arguments(self, out: Path) -> list[str]:
        command = ["train", "--local", "--data", self.prepared, "--out", str(out / "run"), "--recipe", "big_cnn"]
        return [*command, *flags(self.settings), *["--resume"] * (out / "run" / "config.yaml").exists()]

    def facts(self, out: Path) -> Facts:
        return run_facts(Run(str(out / "run")))

    def check(self, out: Path, expected: Facts) -> Any:
        return check_run(Run(str(out / "run")), expected)

    def check_continued(self, out: Path, before: Any) -> None:
        assert_continued(Run(str(out / "run")), before)


class Prepare(Scenario):
    name = "prepare"

    def create_inputs(self) -> None:
        write_images(self.inputs / "images", ("cat", "dog"), 24)

    def arguments(self, out: Path) -> list[str]:
        job.MIN_CHUNK_IMAGES = 8  # several shards
        data = ["--data", str(self.inputs / "images"), "--out", str(out / "set")]
        return ["prepare", *data, "--recipe", "resnet18", *flags({"model.input_size": 32, "data.stored_size": 40})]

    def facts(self, out: Path) -> Facts:
        prepared = prepared_set.open_prepared(str(out / "set"))
        info = {key: value for key, value in prepared.info.items() if key not in ("seconds", "created")}
        parts = [shards.read_shard(path, 40) for path in prepared.shard_paths()]
        stored = [(images.tobytes(), index.tolist()) for images, index in parts]
        return info, prepared.manifest.to_csv(), stored, (out / "set" / "near_duplicates.png").read_bytes()

    def check(self, out: Path, expected: Facts) -> Any:
        for path in out.glob("set/shard-*.parquet"):
            shards.read_shard(str(path), 40)
        if prepared_set.is_prepared(str(out / "set")):
            assert self.facts(out) == expected, "a set that looks complete differs"


class Predict(Scenario):
    name = "predict"
    training: type[Train] = Train

    def create_inputs(self) -> None:
        from animalclf.cli import main

        train = self.training(self.inputs)
        train.create_inputs()
        assert main(train.arguments(self.inputs)) == 0
        write_images(self.inputs / "new", ("",), 12)

    def arguments(self, out: Path) -> list[str]:
        data = ["--data", str(self.inputs / "new"), "--out", str(out / "predicted")]
        return ["predict", str(self.inputs / "run"), *data, "--batch-size", "4"]

    def facts(self, out: Path) -> Facts:
        folder = out / "predicted"
        table = storage.read_table(str(folder / "predictions.parquet"))
        return table.to_csv(), (folder / "submission.csv").read_text(), sorted(path.name for path in folder.iterdir())

    def check(self, out: Path, expected: Facts) -> Any:
        folder = out / "predicted"
        if (folder / "predictions.parquet").exists():
            assert storage.read_table(str(folder / "predictions.parquet")).to_csv() == expected[0]
        if (folder / "submission.csv").exists():
            assert (folder / "submission.csv").read_text() == expected[1]


class Report(Predict):
    name = "report"

    def arguments(self, out: Path) -> list[str]:
        return ["report", str(self.inputs / "run"), "--out", str(out / "page")]

    def facts(self, out: Path) -> Facts:
        plots = {path.name: len(path.read_bytes()) for path in sorted(out.glob("page/report/*.png"))}
        return page(out / "page" / "report.html"), plots

    def check(self, out: Path, expected: Facts) -> Any:
        if (out / "page" / "report.html").exists():
            assert page(out / "page" / "report.html") == expected[0]
        for path in out.glob("page/report/*.png"):
            assert len(path.read_bytes()) == expected[1][path.name]


class Compare(Train):
    name = "compare"
    failed_code = 1
    settings = SETTINGS | {"train.epochs": 2}

    def arguments(self, out: Path) -> list[str]:
        command = ["compare", "--data", self.prepared, "--out", str(out / "comparison"), "--recipes", "big_cnn"]
        command += ["--seeds", "2", *flags(self.settings)]
        return [*command, *["--resume"] * (out / "comparison" / "comparison.yaml").exists()]

    def runs(self, out: Path) -> list[Run]:
        return [Run(str(out / "comparison" / "trials" / f"big_cnn-s{seed}")) for seed in (0, 1)]

    def facts(self, out: Path) -> Facts:
        comparison = read_comparison(str(out / "comparison"))
        assert comparison is not None and (out / "comparison" / "report.html").exists()
        states = [(entry.slug, entry.state, entry.epochs, entry.best) for entry in comparison.trials]
        ensembles = [(result.method, result.weights, result.metrics) for result in comparison.ensembles]
        return [run_facts(run) for run in self.runs(out)], states, ensembles

    def check(self, out: Path, expected: Facts) -> Any:
        read_comparison(str(out / "comparison"))
        return [check_run(run, facts) for run, facts in zip(self.runs(out), expected[0], strict=True)]

    def check_continued(self, out: Path, before: Any) -> None:
        for run, rows in zip(self.runs(out), before, strict=True):
            assert_continued(run, rows)


SCENARIOS: Sequence[type[Scenario]] = (Train, Prepare, Predict, Report, Compare)


def run_facts(run: Run) -> Facts:
    result = run.result()
    rows = [without_times(row) for row in run.metrics()]
    return rows, result.best_epoch, result.metrics, run.predictions("val").to_csv()


def check_run(run: Run, expected: Facts) -> Any:
    """Read every file of a run folder. Returns the rows of its finished epochs."""
    if run.exists():
        run.config(), run.environment()
    for which in ("best", "last"):
        if run.has_checkpoint(which):
            checkpoint.load(run.checkpoint(which))
    if run.finished():
        assert run_facts(run) == expected, "a run that looks finished differs"
    rows = run.metrics()
    assert [without_times(row) for row in rows] == expected[0][: len(rows)]
    return rows


def assert_continued(run: Run, rows: Any) -> None:
    """Their times too are as before: finished epochs are not trained again."""
    assert run.metrics()[: len(rows)] == rows, "a finished epoch was trained again"


def page(path: Path) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", path.read_text())


def write_images(root: Path, classes: Sequence[str], count: int) -> None:
    """Images of smooth noise; the first two are near-duplicates."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
            image = small.resize((64, 48), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number}.png")
            if number == 0:
                image.save(root / name / "again.jpg", quality=60)

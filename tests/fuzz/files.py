"""Damaged tables, recipes, prepared sets, checkpoints and run folders: a UserError in one line, or an answer that the
commands can use. Where the file has checksums, the answer is the undamaged one."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from helpers import tiny_prepared
from run_folders import CLASSES, finished_run
from torch import nn

from animalclf import config as configuration
from animalclf.config import Data, Model
from animalclf.config.parsing import recipe_file, recipe_names
from animalclf.data.prepared_set import open_prepared
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import read_shard
from animalclf.errors import UserError
from animalclf.inference import submission
from animalclf.inference.validation import validation_predictions
from animalclf.models import weights
from animalclf.models.classifier import Classifier
from animalclf.models.registry import MODELS
from animalclf.prepare import sources
from animalclf.report.data import read as read_report
from animalclf.rows import ComparedData, ComparisonSummary, TrialEntry
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.tuning.comparison_dir import PLAN, SUMMARY, open_folder, read_comparison
from animalclf.utils import storage
from fuzz.mutate import mutated
from fuzz.runner import Target

SIZE = 16
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Case:
    """A folder with a file to damage, and its reader. `exact`: a file that is read must give the undamaged answer;
    `whole`: a cut one must."""

    name: str
    folder: str
    file: str
    read: Callable[[str], object]
    exact: bool = False
    whole: bool = False


TINY = "fuzz_tiny"


def _tiny_model(spec: Model, classes: int, load_weights: bool = True) -> Classifier:
    return Classifier(
        nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Linear(2, classes)),
        (0, 0, 0),
        (1, 1, 1),
        spec.input_size,
        classes,
    )


class Files(Target):
    def __init__(self) -> None:
        MODELS.register(TINY)(_tiny_model)
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        home = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        self.temporary = tempfile.TemporaryDirectory(dir=home)
        root = Path(self.temporary.name)
        self.cases = [
            *_tables(root / "tables"),
            *_recipes(root / "recipes"),
            *_prepared(root / "prepared"),
            *_runs(root / "runs"),
            *_submissions(root / "submissions"),
            *_comparisons(root / "comparisons"),
        ]
        self.contents = {case.name: Path(case.folder, case.file).read_bytes() for case in self.cases}
        self.answers = {case.name: _plain(case.read(case.folder)) for case in self.cases}

    def close(self) -> None:
        """Undo the registration of the tiny model."""
        MODELS.unregister(TINY)
        self.temporary.cleanup()

    def check(self, rng: random.Random) -> str:
        case = rng.choice(self.cases)
        content, path = self.contents[case.name], Path(case.folder, case.file)
        kind = case.name.partition(" ")[0]
        damaged, how = mutated(content, rng, list(self.contents.values()))
        path.write_bytes(damaged)
        try:
            answer = _plain(case.read(case.folder))
        except UserError as error:
            text = str(error)
            assert text and "\n" not in text and len(text) < 1500, f"{case.name}, {how}: error {text!r}"
            return f"{kind}: refused"
        except Exception as error:
            error.add_note(f"{case.name}, {how}")
            raise
        finally:
            path.write_bytes(content)
        same = _equal(answer, self.answers[case.name])
        exact = case.exact or (case.whole and how == "cut")
        assert same or not exact, f"{case.name}, {how}: another answer than the undamaged file's"
        return f"{kind}: {'read as before' if same else 'read with other values'}"


def _tables(folder: Path) -> list[Case]:
    rows = [
        (f"{name}/{number}.jpg", name, split)
        for name in ("cat", "dog")
        for number, split in enumerate(("train", "val", ""))
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    for path, _, _ in rows:
        folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(path).write_bytes(b"image")
    files = {
        "comma.csv": table.to_csv(index=False).encode(),
        "semicolon.csv": table.to_csv(index=False, sep=";").encode("utf-8-sig"),
        "tab.tsv": table.to_csv(index=False, sep="\t", lineterminator="\r\n").encode(),
        "utf-16.csv": table.to_csv(index=False).encode("utf-16"),
        "quoted.csv": table.to_csv(index=False, quoting=1).encode(),
    }
    for name, content in files.items():
        folder.joinpath(name).write_bytes(content)
    table.to_parquet(folder / "table.parquet", index=False)
    return [Case(f"table {name}", str(folder), name, _reader_of_tables(name)) for name in [*files, "table.parquet"]]


def _reader_of_tables(name: str) -> Callable[[str], object]:
    def read(folder: str) -> object:
        files = sources.find(os.path.join(folder, name), Data()).files
        assert files["path"].is_unique and (files["label"] != "").all()
        assert set(files["split"]) <= {"", "train", "val", "test"}
        return files

    return read


def _recipes(folder: Path) -> list[Case]:
    folder.mkdir()
    for name in recipe_names():
        shutil.copy(recipe_file(name), folder / f"{name}.yaml")
    folder.joinpath("full.yaml").write_text(configuration.to_yaml(configuration.load()))
    return [
        Case(f"recipe {path.stem}", str(folder), path.name, _reader_of_recipes(path.name))
        for path in sorted(folder.glob("*.yaml"))
    ]


def _reader_of_recipes(name: str) -> Callable[[str], object]:
    return lambda folder: configuration.to_dict(configuration.load(os.path.join(folder, name)))


def _prepared(folder: Path) -> list[Case]:
    root = tiny_prepared(folder).root
    return [
        Case("prepared manifest.parquet", root, "manifest.parquet", _read_prepared, exact=True),
        Case("prepared dataset.json", root, "dataset.json", _read_prepared),
        Case("prepared shard", root, open_prepared(root).info["shards"][0]["file"], _read_shard, exact=True),
    ]


def _read_prepared(root: str) -> object:
    prepared = open_prepared(root)
    plan = sampling_plan(prepared, configuration.load("big_cnn", {"data.stored_size": 144}))
    return [prepared.manifest, prepared.classes, prepared.shard_paths(), prepared.pixel_bytes, plan.rows, plan.labels]


def _read_shard(root: str) -> object:
    prepared = open_prepared(root)
    return list(read_shard(prepared.shard_paths()[0], prepared.stored_size))


def _runs(folder: Path) -> list[Case]:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(CLASSES)), 30)
    run = finished_run(folder / "run", probabilities, np.arange(30) % len(CLASSES))
    config = configuration.to_dict(configuration.load("big_cnn")) | {"name": "fuzz"}
    config["model"]["name"] = TINY
    config = configuration.to_dict(configuration.from_dict(config))
    model = _tiny_model(configuration.from_dict(config).model, len(CLASSES))
    best = {
        "config": config,
        "classes": CLASSES,
        "prior": [0.2, 0.3, 0.5],
        "epoch": 2,
        "metrics": {"epoch": 2},
        "model": model.state_dict(),
    }
    os.makedirs(folder / "run" / "checkpoints")
    Path(run.checkpoint("best")).write_bytes(checkpoint.serialize(best))
    torch.save(model.state_dict(), folder / "weights.pt")
    root = str(folder / "run")
    texts = ["config.yaml", "environment.json", "metrics.jsonl", "result.json"]
    return [
        *(Case(f"run {name}", root, name, _read_run, whole=name != "metrics.jsonl") for name in texts),
        Case("run predictions", root, "predictions/val.parquet", _read_predictions, exact=True),
        Case("checkpoint best.pt", root, "checkpoints/best.pt", _read_checkpoint, exact=True),
        Case(
            "weights file",
            str(folder),
            "weights.pt",
            lambda root: weights.fetch(TINY, f"{root}/weights.pt"),
        ),
    ]


def _read_run(root: str) -> object:
    record = read_report([Run(root)]).runs[0]
    return [
        configuration.to_dict(record.config),
        record.environment.to_dict(),
        [row.to_dict() for row in record.history],
        record.result.to_dict() if record.result else None,
    ]


def _read_predictions(root: str) -> object:
    return vars(validation_predictions([Run(root)]))


def _read_checkpoint(root: str) -> object:
    model, info = checkpoint.load_model(root)
    return [model.state_dict(), configuration.to_dict(info.config), info.classes, info.epoch, info.prior]


def _submissions(folder: Path) -> list[Case]:
    folder.mkdir()
    ids = [f"{number}.jpeg" for number in range(12)]
    for name in ("answers.csv", "sample.csv", "submission.csv"):
        submission.write(str(folder / name), ids, [CLASSES[number % 3] for number in range(12)])

    def read(root: str) -> object:
        paths = [os.path.join(root, name) for name in ("submission.csv", "sample.csv", "answers.csv")]
        return [submission.score(paths[0], paths[2]), submission.form_like(paths[1], ids, CLASSES).columns]

    return [
        Case(f"submission {name}", str(folder), name, read) for name in ("answers.csv", "sample.csv", "submission.csv")
    ]


def _comparisons(folder: Path) -> list[Case]:
    folder.mkdir()
    data = ComparedData(
        source="photos",
        classes=3,
        train=20,
        val=5,
        test=0,
        listing_hash="0a",
        prepared={"64": {"root": "p", "fingerprint": "0b"}},
    )
    trials = [
        TrialEntry(slug=f"a-{seed}", name="a", seed=seed, run=f"old/trials/a-{seed}", best=0.5) for seed in (0, 1)
    ]
    summary = ComparisonSummary(comparison="old", data=data, monitor="val_loss", trials=trials, runs=["old/trials/a-0"])
    planned = [{"slug": trial.slug, "name": trial.name, "seed": trial.seed, "config": {}} for trial in trials]
    plan = {"data": data.to_dict(), "schedule": "none", "searcher": "", "trials": planned}
    (folder / PLAN).write_text(yaml.safe_dump(plan, sort_keys=False))
    storage.write_json(str(folder / SUMMARY), summary.to_dict())
    return [Case(f"comparison {name}", str(folder), name, _read_comparison) for name in (PLAN, SUMMARY)]


def _read_comparison(root: str) -> object:
    comparison, stored = read_comparison(root), open_folder(root, resume=True)
    assert comparison and stored
    runs = [trial.run for trial in comparison.trials]
    assert all(Path(root) in Path(root, "trials", slug).parents for slug in stored.planned)
    return [[trial.to_dict() for trial in comparison.trials], runs, stored.data.to_dict(), list(stored.planned)]


def _plain(value: object) -> object:
    """An answer as values that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, pd.DataFrame):
        return {str(name): column.to_numpy() for name, column in value.items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _equal(first: object, second: object) -> bool:
    try:
        np.testing.assert_equal(first, second)
    except AssertionError:
        return False
    return True

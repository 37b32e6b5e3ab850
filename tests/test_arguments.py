"""Arguments of the Python API: wrong ones are named before any work, NumPy's and pathlib's values are plain values."""

import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import animalclf
from animalclf import config as configuration
from animalclf.api.calls import CHECKS
from animalclf.folder_lock import LockHolder
from animalclf.runs import Run
from animalclf.utils import arguments

SETTINGS = "a mapping of configuration keys, such as"


@pytest.mark.parametrize(
    ("function", "values", "message"),
    [
        ("prepare", {"out": None}, "out: a path or s3:// URL (str or os.PathLike), not None"),
        ("prepare", {"data": ""}, "data: the path of a file or folder, not ''"),
        ("prepare", {"data": "a\0b"}, "data: the path of a file or folder, not 'a\\x00b'"),
        ("prepare", {"data": 7}, "data: a path or s3:// URL (str or os.PathLike), not 7"),
        ("prepare", {"data": np.zeros((99, 99))}, "data: a path or s3:// URL (str or os.PathLike), not a list"),
        ("prepare", {"recipe": None}, "recipe: the name of a recipe, or the path of a YAML file, not None"),
        ("prepare", {"recipe": "vgg"}, "unknown recipe 'vgg' (did you mean 'vgg16'?)"),
        ("prepare", {"set": ["data.val"]}, f"set: {SETTINGS} {{\"train.epochs\": 5}}, not ['data.val']"),
        ("prepare", {"set": {3: 1}}, f"set: {SETTINGS}"),
        ("prepare", {"set": {"data.val": "half"}}, "data.val: 'half' is not a number"),
        ("prepare", {"limit": -1}, "limit: a whole number, at least 0, not -1"),
        ("prepare", {"limit": 1.5}, "limit: a whole number, at least 0, not 1.5"),
        ("prepare", {"limit": True}, "limit: a whole number, at least 0, not True"),
        ("prepare", {"force": "no"}, "force: True or False, not 'no'"),
        ("train", {"workers": -1}, "workers: a whole number, at least 0, not -1"),
        ("train", {"workers": "many"}, "workers many: write a number, as in workers=4, or minimum and maximum, as in"),
        ("train", {"resume": True}, "resume=True needs out: the run folder to continue"),
        ("train", {"local": None}, "local: True or False, not None"),
        ("compare", {"recipes": []}, "recipes: names, or mappings such as"),
        ("compare", {"recipes": ["demo", None]}, "recipes: names, or mappings such as"),
        ("compare", {"recipes": 5}, "recipes: names, or mappings such as"),
        ("compare", {"seeds": 0}, "seeds: a number of seeds, at least 1, or a list of whole numbers such as [0, 5]"),
        ("compare", {"seeds": [0, -1]}, "seeds: a whole number, at least 0, not -1"),
        ("compare", {"grid": [1, 2]}, f"grid: {SETTINGS}"),
        ("compare", {"search": "optim.lr"}, f"search: {SETTINGS}"),
        (
            "compare",
            {"recipes": ["demo"], "samples": 2},
            "samples: there are no search ranges to draw from; add some, for example search=",
        ),
        ("compare", {"samples": -1}, "samples: a whole number, at least 0, not -1"),
        ("compare", {"searcher": "optune"}, "searcher: one of random, optuna, not 'optune' (did you mean 'optuna'?)"),
        ("compare", {"workers": "2:8"}, "workers: a whole number, at least 0, not '2:8'"),
        ("compare", {"prior": None}, 'prior: "train", "uniform", "estimate", class priors such as'),
        ("compare", {}, 'no recipes to compare; name some: recipes=["big_cnn", "vgg16"], or'),
        ("evaluate", {"run": None}, "run: a path or s3:// URL (str or os.PathLike), not None"),
        ("evaluate", {"split": "foo"}, "split: one of train, val, test, not 'foo'"),
        ("predict", {"workers": -1}, "workers: a whole number, at least 0, not -1"),
        ("predict", {"batch_size": 0}, "batch_size: a whole number, at least 1, not 0"),
        ("predict", {"sample_submission": 3}, "sample_submission: a path or s3:// URL (str or os.PathLike), not 3"),
        ("ensemble", {"members": []}, "members: one path or more, not []"),
        ("ensemble", {"members": ["x", None]}, "members: a path or s3:// URL (str or os.PathLike), not None"),
        ("ensemble", {"method": "median"}, "method: one of vote, mean, weighted, not 'median'"),
        ("ensemble", {"method": []}, "method: one or more of vote, mean, weighted, not []"),
        ("report", {"folders": []}, "folders: one path or more, not []"),
        ("load", {"run": 3}, "run: a path or s3:// URL (str or os.PathLike), not 3"),
        ("load", {"device": None}, 'device: "auto", "cpu", "cuda" or a torch.device, not None'),
    ],
)
def test_a_wrong_argument_is_named_before_any_work(function, values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = getattr(animalclf, function)
    parameters = inspect.signature(called).parameters.values()
    required = {item.name: "missing" for item in parameters if item.default is item.empty}
    with pytest.raises(animalclf.UserError) as caught:
        called(**required | values)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"predict": "missing"}, "missing: "),
        ({"predict": "new", "sample_submission": "missing.csv"}, "missing.csv: no such file"),
        ({"prior": "unifrm"}, "prior unifrm: "),
    ],
)
def test_a_prediction_that_cannot_be_is_named_before_the_trainings(values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("animalclf.tuning.compare.compare", lambda *args, **options: pytest.fail("training started"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1.jpg").write_bytes(b"1")
    with pytest.raises(animalclf.UserError, match=message):
        animalclf.compare("photos", recipes=["demo"], **values)


@pytest.mark.parametrize(
    ("function", "values", "message"),
    [
        ("train", {"out": "typo", "resume": True}, "typo: no run to resume"),
        ("train", {"out": "run"}, "run: already contains a run; continue it with resume=True"),
        ("train", {"out": "file"}, "file: is a file; choose another out"),
        ("train", {"out": "locked"}, "locked: in use by process 1 on elsewhere"),
        ("compare", {"out": "typo", "resume": True}, "typo: no comparison to resume"),
        ("compare", {"out": "comparison"}, "comparison: already contains a comparison"),
        ("compare", {"out": "run"}, "run: is the folder of a single run"),
        ("compare", {"out": "file"}, "file: is a file"),
    ],
)
def test_the_output_folder_is_checked_before_the_images(function, values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run(str(tmp_path / "run")).write_config(configuration.load("demo"))
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.yaml").touch()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "running.json").write_text(json.dumps(LockHolder("elsewhere", 1, time.time()).to_dict()))
    (tmp_path / "file").touch()
    if function == "compare":
        values = values | {"recipes": ["demo"], "predict": "no images"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(animalclf.UserError) as caught:
        getattr(animalclf, function)("no images", **values)
    assert message in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_every_parameter_of_the_api_has_a_check():
    functions = {name: getattr(animalclf, name) for name in animalclf.__all__ if name not in ("UserError", "leave_ray")}
    unchecked = {
        f"{name}.{parameter}"
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters
        if not {parameter, f"{name}.{parameter}"} & CHECKS.keys()
    }
    assert not unchecked


def test_an_unknown_parameter_names_the_function():
    with pytest.raises(TypeError, match=r"animalclf\.prepare\(\): 'outt' is no argument \(did you mean 'out'\?\)"):
        animalclf.prepare("a", outt="c")
    with pytest.raises(TypeError, match=r"animalclf\.prepare\(\): missing a required argument: 'out'"):
        animalclf.prepare("a")


def test_numpy_values_ranges_and_paths_are_plain_values(monkeypatch, tmp_path):
    calls = []

    def run_trials(spec, data, folder, **options):
        calls.append((spec, data, options))
        raise animalclf.UserError("stop here")

    monkeypatch.setattr("animalclf.tuning.compare.compare", run_trials)
    monkeypatch.chdir(tmp_path)
    settings = {"train.epochs": np.int64(3), "augment.flip": np.bool_(False), "model.weights": Path("w.pth")}
    for seeds in (range(2), np.arange(2), np.int64(2), (0, 1)):
        with pytest.raises(animalclf.UserError, match="stop here"):
            animalclf.compare(
                Path("photos"),
                recipes=np.array(["demo"]),
                seeds=seeds,
                set={**settings, "augment.zoom": np.array([0.5, 1.5])},
                grid={"optim.lr": np.array([1e-3, 1e-2])},
                workers=np.int64(2),
            )
        spec, data, options = calls.pop()
        assert data == "photos" and options["workers"] == 2
        configs = [trial.config for trial in spec.trials]
        assert [(config.optim.lr, config.seed) for config in configs] == [(1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 1)]
        assert {(config.train.epochs, config.augment.flip, config.model.weights) for config in configs} == {
            (3, False, "w.pth")
        }
        assert configs[0].augment.zoom == (0.5, 1.5)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("continue it with --resume, or choose another --out", "continue it with resume=True, or choose another out"),
        ("raise it with --set data.max_unreadable=0.2.", 'raise it with set={"data.max_unreadable": 0.2}.'),
        ("or train with --set model.weights=none", 'or train with set={"model.weights": "none"}'),
        ("store them smaller (--set data.stored_size=...)", 'store them smaller (set={"data.stored_size": ...})'),
        ("as in --workers 4, as in --workers 2:8", 'as in workers=4, as in workers="2:8"'),
        ("--search optim.lr=log:1e-5:1e-2", 'search={"optim.lr": "log:1e-5:1e-2"}'),
        ("use --prior train", 'use prior="train"'),
        ("try a smaller --batch-size", "try a smaller batch_size"),
        ("a larger --object-store-memory", "a larger --object-store-memory"),
        (
            "make one: animalclf prepare --data photos/ --out prepared; with --force",
            "make one: animalclf prepare --data photos/ --out prepared; with force=True",
        ),
    ],
)
def test_messages_name_arguments_instead_of_flags(message, expected):
    flags = ("resume", "force")
    parameters = ("workers", "out", "prior", "batch_size", *flags)
    assert arguments.in_python(message, flags, parameters) == expected


@pytest.mark.ray
def test_the_environment_is_as_before_when_ray_ends(tmp_path):
    code = """
import os
import animalclf
from animalclf.demo.dataset import write_demo

if __name__ == "__main__":
    write_demo("demo", images=30, test_images=1, size=(64, 48))
    os.environ["MALLOC_ARENA_MAX"] = os.environ["GOMP_SPINCOUNT"] = "3"
    before = dict(os.environ)
    animalclf.prepare("demo", "set", recipe="demo")
    assert os.environ["ANIMALCLF_OWN_RAY"] == "1" and os.environ["MALLOC_ARENA_MAX"] == "1"
    assert os.environ["GOMP_SPINCOUNT"] == "3"  # what the user has chosen stays
    animalclf.leave_ray()
    ours = ("RAY_TRAIN", "RAY_DATA", "RAY_AIR", "TUNE_", "MALLOC", "GOMP", "ANIMALCLF")
    changed = {key for key in {*before, *os.environ} if before.get(key) != os.environ.get(key)}
    assert not [key for key in changed if key.startswith(ours)], changed
"""
    (tmp_path / "script.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != "ANIMALCLF_OWN_RAY"}
    environment["PYTHONPATH"] = str(Path(animalclf.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

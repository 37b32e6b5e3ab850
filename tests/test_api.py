"""The Python API: cheap to import, the same results as the commands, a good guest in processes and notebooks."""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import LITE, remaining, tiny_prepared, train_workers
from PIL import Image

import animalclf
from animalclf import cluster
from animalclf.api import calls
from animalclf.cli import main
from animalclf.data import decode, shards
from animalclf.data.prepared_set import open_prepared
from animalclf.demo.dataset import write_demo
from animalclf.predictions import class_probabilities
from animalclf.rows import Leaderboard, LeaderboardRow, Spread, VoteResult
from animalclf.runs import Run
from animalclf.utils import caller

SMALL = {**LITE, "train.epochs": 1, "train.precision": "fp32"}


def cut_png():
    """The first half of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)).save(file, "PNG")
    return io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2])


def test_importing_is_cheap_and_imports_neither_torch_nor_ray():
    code = (
        "import sys, time\nbegan = time.process_time()\nimport animalclf\nspent = time.process_time() - began\n"
        "animalclf.prepare, animalclf.report\nimport animalclf.prepare.manifest, animalclf.report.render\n"
        "assert callable(animalclf.prepare) and callable(animalclf.report)  # and not the subpackages\n"
        "assert not {'torch', 'ray'} & set(sys.modules), 'imported'\nprint(spent)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


def test_everything_public_has_a_docstring_and_unknown_names_are_refused():
    assert all(getattr(animalclf, name).__doc__ for name in animalclf.__all__)
    assert set(animalclf.__all__) <= set(dir(animalclf))
    with pytest.raises(AttributeError, match=r"no attribute 'trian' \(did you mean 'train'\?\)"):
        _ = animalclf.trian


# ------------------------------------------------------------------------------------------- a model in this process


@contextlib.contextmanager
def unchanged_pytorch():
    """Fails if the block changes PyTorch's random numbers or its number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    try:
        yield
        assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a tiny prepared set, trained in this process, and its result."""
    root = tmp_path_factory.mktemp("api")
    tiny_prepared(root / "set", size=76)
    settings = {"train.epochs": 1, "train.precision": "fp32"}
    with unchanged_pytorch():
        result = animalclf.train(root / "set", recipe="demo", out=root / "run", set=settings, local=True)
    return root, result


@pytest.fixture(scope="module")
def images(trained):
    """The validation images uint8 (N, S, S, 3) and what the training recorded for them."""
    root, _ = trained
    prepared, table = open_prepared(str(root / "set")), Run(str(root / "run")).predictions("val").set_index("path")
    stored = np.zeros((len(prepared.manifest), 76, 76, 3), np.uint8)
    for shard in prepared.shard_paths():
        pixels, index = shards.read_shard(shard, 76)
        stored[index] = pixels
    rows = prepared.rows("val")
    recorded = table.loc[prepared.manifest["path"].iloc[rows]]
    return stored[rows], class_probabilities(recorded, prepared.classes), recorded["predicted"].tolist()


def test_a_training_returns_its_typed_result_and_records_the_call(trained):
    root, result = trained
    assert (
        result.run == str(root / "run")
        and result.epochs == 1
        and result.val.metrics["accuracy"] == result.metrics["accuracy"]
    )
    assert result.startup["total"] < 120  # since the call, not since the process began
    environment = json.loads((root / "run" / "environment.json").read_text())
    assert environment["command"].startswith("animalclf.train(data=") and "local=True" in environment["command"]
    page = Path(animalclf.report(result.run).report).read_text()
    assert "animalclf.train(data=" in page and "ipykernel" not in page


def test_calls_leave_pytorch_and_the_environment_as_they_were(trained, tmp_path):
    with unchanged_pytorch():
        animalclf.load(trained[0] / "run")
        animalclf.evaluate(trained[0] / "run", out=tmp_path / "evaluation")
    before = dict(os.environ)
    with cluster.restore_settings():
        os.environ.update(dict.fromkeys(cluster.LIBRARY_VARIABLES, "changed"))
    assert dict(os.environ) == before


def logit_directions(probabilities: np.ndarray) -> np.ndarray:
    logits = np.log(probabilities.astype(np.float64))
    logits -= logits.mean(1, keepdims=True)
    return logits / np.linalg.norm(logits, axis=1, keepdims=True)


def test_load_gives_the_probabilities_of_the_training(trained, images):
    model, (pixels, probabilities, predicted) = animalclf.load(trained[0] / "run"), images
    assert model.classes == trained[1].classes and model.config.name == "demo"
    predictions = model.predict_proba(pixels)
    assert predictions.dtype == np.float32 and predictions.shape == probabilities.shape
    # The training records each image with the temperature of the other folds, the model has that of all images. A
    # temperature divides the logits, which changes only their length.
    np.testing.assert_allclose(logit_directions(predictions), logit_directions(probabilities), atol=1e-4)
    np.testing.assert_allclose(predictions, probabilities, atol=0.01)
    assert model.predict(pixels) == predicted
    features = model.embed(pixels)
    assert features.dtype == np.float32 and features.shape[0] == len(pixels) and features.ndim == 2


def test_images_come_in_many_forms(trained, images, tmp_path):
    model, pixels = animalclf.load(trained[0] / "run"), images[0][:3]
    expected = model.predict_proba(pixels)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    pillow = [Image.fromarray(image) for image in pixels]
    for same in (list(pixels), files, [str(file) for file in files], pillow, (files[0], pillow[1], pixels[2])):
        np.testing.assert_allclose(model.predict_proba(same), expected, atol=1e-6)
    for image in (pixels[0], files[0], pillow[0]):
        np.testing.assert_allclose(model.predict_proba(image), expected[:1], atol=1e-6)
        assert len(model.predict(image)) == 1
    assert model.predict_proba([]).shape == (0, 3) and model.predict([]) == []
    features = model.embed(pixels[:1])
    assert np.array_equal(np.concatenate([model.embed([]), features]), features)
    assert "<td>class0, class1, class2</td>" in model._repr_html_()


def test_a_pillow_image_is_read_as_its_file(tmp_path):
    """Turned by EXIF, with transparency, grey and 16 bits: the same pixels from the file and from the opened image."""
    generator = np.random.default_rng(0)
    colours, exif = generator.integers(0, 256, (20, 30, 4), np.uint8), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours[:, :, :3]).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(colours).save(tmp_path / "transparent.png")
    Image.fromarray(colours[:, :, 0]).save(tmp_path / "grey.png")
    Image.fromarray(colours[:, :, 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    Image.fromarray(colours[:, :, 0].astype(np.uint16)).save(tmp_path / "dark_16_bits.png")
    Image.fromarray(colours[:, :, 0].astype(np.uint16)).save(tmp_path / "dark_16_bits.tif")
    Image.fromarray(colours[:, :, 0].astype(np.int32)).save(tmp_path / "8_bits_in_32.tif")
    Image.fromarray(colours[:, :, 0].astype(np.int32) * 256).save(tmp_path / "16_bits_in_32.tif")
    for file in sorted(tmp_path.iterdir()):
        with Image.open(file) as opened:
            np.testing.assert_array_equal(decode.from_pil(opened), decode.decode(file.read_bytes()).image)
    grey = Image.fromarray(colours[:, :, :2])
    np.testing.assert_array_equal(
        decode.from_pil(grey.convert("La")), decode.from_pil(grey.convert("La").convert("LA"))
    )


def test_unreadable_files_are_named(trained, tmp_path):
    model = animalclf.load(trained[0] / "run")
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("page.jpg", "cut.jpg", "missing.jpg", "zero\0.jpg"):
        with pytest.raises(animalclf.UserError, match=f"{name}: cannot be read: ."):
            model.predict([np.zeros((8, 8, 3), np.uint8), tmp_path / name])
    with pytest.raises(animalclf.UserError, match="no run in this folder"):
        animalclf.load(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.zeros((8, 8, 3), np.float32)], r"image 0: an array of float32 \(8, 8, 3\); give uint8 \(H, W, 3\)"),
        ([np.zeros((8, 8), np.uint8)], r"image 0: an array of uint8 \(8, 8\)"),
        (np.zeros((8, 8), np.uint8), r"images: an array of uint8 \(8, 8\); give uint8 \(H, W, 3\)"),
        (np.array(7), r"images: an array of int64 \(\)"),
        (np.zeros((0, 8, 3), np.uint8), r"image 0: an array of uint8 \(0, 8, 3\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"image 0: an array of uint8 \(8, 8, 1\)"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), r"images: an array of uint8 \(1, 1, 8, 8, 3\)"),
        ([7], "image 0: int is not a path"),
        (None, "images: NoneType is not a path, URL, array or PIL image, nor a list of these"),
        ({"a": 1}, "images: dict is not a path"),
        (b"abc", "images: bytes is not a path"),
        (io.BytesIO(b"abc"), "images: BytesIO is not a path"),
        (pd.DataFrame({"path": ["a.jpg"]}), r"images: DataFrame is a table; give one column of paths, such as"),
        ("", "image 0: cannot be read"),
        (Image.new("RGB", (0, 4)), "image 0: cannot be read: no pixels"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "image 0: cannot be read: no finite values"),
        (Image.open(cut_png()), "image 0: cannot be read: damaged: "),
    ],
)
def test_what_is_no_image_is_named(trained, images, message):
    with pytest.raises(animalclf.UserError, match=message):
        animalclf.load(trained[0] / "run").predict(images)


def test_a_device_is_a_name_or_a_torch_device(trained):
    import torch

    assert animalclf.load(trained[0] / "run", device=torch.device("cpu")).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device: 'gpu' is not one of auto, cpu, cuda"),
        ("cuda:99", "device: cuda:99, but PyTorch sees [0-9]+ GPU"),
    ],
)
def test_a_device_that_is_not_there_is_named(trained, device, message):
    with pytest.raises(animalclf.UserError, match=message):
        animalclf.load(trained[0] / "run", device=device)


def test_a_report_of_a_run_without_a_validation_split(tmp_path, capsys):
    tiny_prepared(tmp_path / "set", val=0)
    animalclf.train(tmp_path / "set", recipe="demo", out=tmp_path / "run", set={**SMALL, "train.epochs": 2}, local=True)
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out.splitlines()[-1])["report"]).read_text()
    assert 'id="learning_curves"' in page and 'id="leaderboard"' not in page


# ----------------------------------------------------------------------------------------------- results in notebooks


def test_results_are_small_escaped_tables_in_notebooks(trained):
    html = trained[1]._repr_html_()
    assert "<td>accuracy</td>" in html and html.count("<tr>") < 30
    assert "<td>class2</td>" in open_prepared(str(trained[0] / "set"))._repr_html_()
    evaluation = trained[1].val._repr_html_()
    low, high = trained[1].val.intervals["accuracy"]
    assert f"({low:.4f} to {high:.4f})" in evaluation
    spread = Spread(mean=0.5, std=None, low=0.25, high=0.75, values=[0.5])
    row = LeaderboardRow(
        recipe="<b>net</b>", kind="model", seeds=[0], runs=[], metrics={"accuracy": spread}, best_epoch=None,
        images_per_s=None, seconds_to_best=0, device_seconds_to_best=0, parameters=1, trainable=1,
    )  # fmt: skip
    board = Leaderboard(images=4, classes=["a"], rows=[row], pairs=[])._repr_html_()
    assert "&lt;b&gt;net&lt;/b&gt;" in board and "<b>" not in board and "0.5000 (0.2500 to 0.7500)" in board
    assert (
        "&lt;i&gt;.csv"
        in VoteResult(files=[], submission="<i>.csv", rows=1, unanimous=1, ties=0, changed=0)._repr_html_()
    )


# --------------------------------------------------------------------------------------------- in a Ray of the caller


def train_with_an_interrupt(data, out):
    """The result of a training that an interrupt ends after its first epoch, and that is resumed for one more."""
    import ray

    def interrupt():
        deadline = time.monotonic() + 300
        while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    settings = SMALL | {"optim.schedule": "constant"}
    with pytest.raises(KeyboardInterrupt):
        animalclf.train(data, recipe="demo", out=out, set=settings | {"train.epochs": 100})
    assert ray.is_initialized() and not remaining(train_workers)
    assert not (out / "result.json").exists() and not (out / "running.json").exists()
    epochs = len(Run(str(out)).metrics()) + 1
    result = animalclf.train(data, recipe="demo", out=out, set=settings | {"train.epochs": epochs}, resume=True)
    assert result.epochs == epochs
    return result


def test_calls_of_several_threads_know_themselves_and_restore_the_process_after_the_last(monkeypatch):
    monkeypatch.delenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", raising=False)
    level = logging.getLogger("ray.data").level
    first_runs, first_ends, texts = threading.Event(), threading.Event(), {}

    @calls.public
    def prepare(data):
        if data == "first":
            cluster.silence_ray()
            os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "5"
            first_runs.set()
            second_runs.wait(10)
        else:
            second_runs.set()
            first_ends.wait(10)
        texts[data] = caller.caller().text
        texts[f"{data} in a thread"] = ThreadPoolExecutor(1).submit(lambda: caller.caller().text).result()
        texts[f"{data}: level"] = logging.getLogger("ray.data").level
        raise animalclf.UserError("continue with --resume")

    second_runs = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, "first")
        assert first_runs.wait(10)
        second = pool.submit(prepare, "second")
        assert "resume=True" in str(first.exception())
        first_ends.set()
        assert "resume=True" in str(second.exception())
    assert texts["first"] == "animalclf.prepare(data='first')" == texts["first in a thread"]
    assert texts["second"] == "animalclf.prepare(data='second')" == texts["second in a thread"]
    assert texts["first: level"] == texts["second: level"] == logging.CRITICAL
    assert logging.getLogger("ray.data").level == level and "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S" not in os.environ
    assert not caller.is_known() and not caller.caller().text.startswith("animalclf.prepare")


@pytest.mark.ray
def test_a_guest_in_the_callers_ray(tmp_path, ray_local, monkeypatch):
    """prepare, an interrupted and resumed train, evaluate, predict and load agree, in a Ray that stays as it was."""
    import ray
    import ray.data

    monkeypatch.delenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", raising=False)
    context, logger, job = (
        ray.data.DataContext.get_current(),
        logging.getLogger("ray.data"),
        ray.get_runtime_context().get_job_id(),
    )
    monkeypatch.setattr(context, "target_max_block_size", 12345)
    monkeypatch.setattr(context, "enable_progress_bars", True)
    level = logger.level
    write_demo(str(tmp_path / "demo"), images=60, test_images=12, seed=3)
    prepared = animalclf.prepare(tmp_path / "demo", tmp_path / "set", recipe="demo", set=LITE)
    result = train_with_an_interrupt(prepared.root, tmp_path / "run")
    evaluation = animalclf.evaluate(result.run)
    assert evaluation["accuracy"] == pytest.approx(result.metrics["accuracy"])
    predicted = animalclf.predict(result.run, tmp_path / "demo")
    table = pd.read_parquet(predicted.predictions)
    files = [Path(predicted.data) / path for path in table["path"]]
    model = animalclf.load(result.run)
    np.testing.assert_allclose(model.predict_proba(files), class_probabilities(table, model.classes), atol=1e-5)
    assert model.predict(files) == table["predicted"].tolist()
    assert ray.is_initialized() and ray.get_runtime_context().get_job_id() == job
    assert (context.target_max_block_size, context.enable_progress_bars, logger.level) == (12345, True, level)
    assert "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S" not in os.environ
    animalclf.leave_ray()
    assert ray.is_initialized()


@pytest.mark.ray
def test_compare_and_ensemble_return_what_the_commands_print(tmp_path, ray_local):
    tiny_prepared(tmp_path / "set")
    out = tmp_path / "comparison"
    result = animalclf.compare(tmp_path / "set", recipes=["demo"], grid={"optim.lr": [1e-4, 1e-3]}, set=SMALL, out=out)
    assert not result.failed and len(result.trials) == 2 and len(result.ensembles) == 3 and Path(result.report).exists()
    assert "<td>demo lr=" in result._repr_html_()
    runs = [trial.run for trial in result.trials]
    joined = animalclf.ensemble(runs, out=tmp_path / "joined", method=["mean"])
    assert [ensemble.method for ensemble in joined.ensembles] == ["mean"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["ensemble", *runs, "--out", str(tmp_path / "again"), "--method", "mean", "--json"]) == 0
    content = json.loads(printed.getvalue().splitlines()[-1])
    assert content["leaderboard"] == [
        row | {"runs": [url.replace("joined", "again") for url in row["runs"]]}
        for row in joined.leaderboard.to_dict()["rows"]
    ]
    new_folder = tmp_path / "moved"
    out.rename(new_folder)
    assert str(new_folder) in animalclf.report(new_folder).report

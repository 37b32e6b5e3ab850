"""Exported models: the same probabilities as `predict`, from the pixels of files of any size and mode."""

import json
import runpy
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import LITE, tiny_prepared
from PIL import Image

from animalclf import config as configuration
from animalclf.data.augment import evaluation_view
from animalclf.data.decode import decode
from animalclf.data.resize import stored_image
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.rows import HeadRow
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils.canvas import sides_on_canvas

pytest.importorskip("onnx", reason="the extra export is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from animalclf.export import export  # noqa: E402
from animalclf.export.card import model_card  # noqa: E402
from animalclf.export.check import KINDS, save_varied  # noqa: E402
from animalclf.export.network import area_weights, network_graph, whole_graph  # noqa: E402
from animalclf.export.preprocessing import preprocessing  # noqa: E402


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """The folder of a finished run of one epoch."""
    import animalclf

    root = tmp_path_factory.mktemp("export")
    prepared = tiny_prepared(root / "set", (16, 16, 12))
    settings = LITE | {"train.epochs": 1, "train.precision": "fp32"}
    return animalclf.train(prepared.root, recipe="big_cnn", out=root / "run", set=settings, local=True).run


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def photo(seed, height, width):
    """Soft noise in a colour of its own."""
    generator = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(generator.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.5)
    return (noise * generator.uniform(0.2, 1, 3)).astype(np.uint8)


THIN = [(1, 1), (3, 400), (400, 2), (3, 3000), (4, 3000), (5, 3)]


@pytest.mark.parametrize("resize, size", [("squash", 144), ("keep", 96)])
def test_the_graph_resizes_as_prepare_does(resize, size):
    run = session(preprocessing(size, resize)).run
    random, off, pixels = np.random.default_rng(0), 0, 0
    sides = [(size, size), (size, 2 * size), (2 * size, 2 * size), *THIN, *random.integers(5, 500, (40, 2))]
    for seed, (height, width) in enumerate(sides):
        image = photo(seed, height, width)
        expected = stored_image(image, size, resize)
        if resize == "keep":
            rows, columns = sides_on_canvas(height, width, size)
            expected = expected[:rows, :columns]
        (resized,) = run(None, {"images": image[None]})[0]
        assert resized.shape == expected.shape, (height, width)
        difference = np.abs(resized.astype(int) - expected)
        assert difference.max() <= 1
        off, pixels = off + np.count_nonzero(difference), pixels + difference.size
        assert min(height, width) > 3 or np.mean(difference > 0) < 1e-4
    assert off / pixels < 1e-3


@pytest.mark.parametrize("old, new", [(144, 128), (252, 224), (96, 96), (128, 64)])
def test_the_views_weights_are_those_of_opencv(old, new):
    image, weights = photo(0, old, old), area_weights(old, new)
    means = np.einsum("ys,stc,xt->yxc", weights, image.astype(np.float32), weights, optimize=True).round()
    difference = np.abs(means - evaluation_view(image[None], new)[0])
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.3


def make_images_differ(model, views):
    """Give a network of random weights activations of usual size, and logits that differ by 2 between images."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        list(model.head.parameters())[-2].normal_(std=1)
        torch.nn.Module.train(model)
        model(views)
        model.eval()
        model.temperature = np.ptp(model(views).numpy(), 0).max() / 2


@pytest.mark.parametrize(
    "recipe, settings",
    [
        ("big_cnn", {"data.stored_size": 84, "model.input_size": 76}),
        ("vgg16_pooled", {"data.stored_size": 72, "model.input_size": 64, "model.weights": "none"}),
        ("resnet18", {"data.stored_size": 72, "model.input_size": 64, "model.weights": "none"}),
        ("quick", {"data.stored_size": 96, "model.input_size": 72, "model.name": "efficientnet_lite0"}),
    ],
)
def test_each_architecture_gives_the_probabilities_of_its_model(recipe, settings):
    config = configuration.load(recipe, settings)
    torch.manual_seed(0)
    model = build(config.model, 3, load_weights=False, keep_shape=config.keeps_shape).eval()
    photos = [photo(seed, height, width) for seed, (height, width) in enumerate([(50, 90), (300, 200), (81, 80)])]
    stored = [stored_image(image, config.data.stored_size, config.data.resize) for image in photos]
    views = torch.from_numpy(evaluation_view(np.stack(stored), config.view_size))
    make_images_differ(model, views)
    with torch.inference_mode():
        expected = model(views).softmax(1).numpy()
    run = session(whole_graph(network_graph(model, config), config, ["a", "b", "c"])).run
    probabilities = np.concatenate([run(None, {"images": image[None]})[0] for image in photos])
    # Random weights amplify the pixels of cubic resizing that differ by 1.
    np.testing.assert_allclose(probabilities, expected, atol=5e-4)
    several = run(None, {"images": np.stack([photos[0], photos[0][:, ::-1]])})[0]
    np.testing.assert_allclose(several[0], probabilities[0], atol=1e-6)


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The result of an export in all formats, compared on one file of each kind and two photographs more."""
    import animalclf

    out = tmp_path_factory.mktemp("exported") / "out"
    formats = ["onnx", "onnx-int8", "safetensors"]
    return animalclf.export(trained_run, to=formats, out=out, check=len(KINDS) + 2)


def run_script(folder, *arguments):
    """`predict_onnx.py` without animalclf and the packages that only it needs."""
    code = "import sys; sys.modules.update(animalclf=None, torch=None, cv2=None); import runpy; sys.argv.pop(0); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, f"{folder}/predict_onnx.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_is_exported_and_checked(exported):
    files = {"model.onnx", "model-int8.onnx", "model.safetensors", "labels.json", "predict_onnx.py", "README.md"}
    assert set(exported.files) == files == {path.name for path in Path(exported.folder).iterdir()}
    exact, small = exported.checks
    assert exact.same_class == exact.files == len(KINDS) + 2 and exact.largest_difference < 1e-3
    assert exact.largest_of_pixels < 1e-4
    assert exact.accuracy == exact.accuracy_of_predict and small.file == "model-int8.onnx" and small.split == "val"


def test_the_card_says_which_file_the_figures_are_of(exported, trained_run):
    card, small = (Path(exported.folder) / "README.md").read_text(), exported.checks[1]
    assert "the metrics of model.onnx and model.safetensors, and not of model-int8.onnx." in card
    loss = small.accuracy - small.accuracy_of_predict
    assert f"its accuracy is {small.accuracy:.3f}" in card and f"a difference of {loss:+.3f}" in card
    _, info = checkpoint.load_model(trained_run)
    alone = model_card(Run(trained_run), info, {"model-int8.onnx": "1 MB"}, [])
    assert "Its loss of accuracy is not measured" in alone and "uses `model-int8.onnx`" in alone
    assert "model-index" not in yaml.safe_load(alone.split("---")[1])


def test_the_card_has_the_temperatures_of_fitted_heads(trained_run, monkeypatch):
    _, info = checkpoint.load_model(trained_run)
    head = HeadRow("logistic", {}, temperature=0.331, log_loss=0.2)
    result = replace(Run(trained_run).result(), heads=[head, replace(head, kind="lda", temperature=20.0)])
    monkeypatch.setattr(Run, "result", lambda run: result)
    card = model_card(Run(trained_run), info, {"model.onnx": "1 MB"}, [])
    assert "by its own temperature (logistic 0.331, lda 20.000)" in card and "a temperature of 1" not in card


def test_weights_of_8_bits_are_measured_without_being_asked(trained_run, tmp_path, capsys):
    exact, lossy = export.FORMATS.get("onnx"), export.FORMATS.get("onnx-int8")
    assert export._check_count(Run(trained_run), [exact, lossy], 0) == export.FILES
    assert export._check_count(Run(trained_run), [exact], 0) == 0
    moved = Run(str(shutil.copytree(trained_run, tmp_path / "moved")))
    (tmp_path / "moved" / "environment.json").write_text('{"prepared": "/nowhere", "data_fingerprint": "x"}')
    assert export._check_count(moved, [lossy], 0) == 0
    assert "8 bits is not measured: " in capsys.readouterr().err


def test_the_script_gives_the_answers_of_predict(exported, trained_run, tmp_path):
    import animalclf

    model = animalclf.load(trained_run)
    paths = [save_varied(photo(seed, 60, 80), seed, tmp_path, 576) for seed in range(len(KINDS))]
    (tmp_path / "text.jpg").write_text("text")
    printed = run_script(exported.folder, paths[0], str(tmp_path / "text.jpg"), str(tmp_path / "none.jpg"), *paths[1:])
    assert printed.returncode == 3
    text, missing = printed.stderr.splitlines()
    assert text.startswith(f"unreadable: {tmp_path}/text.jpg: cannot identify")
    assert missing == f"unreadable: {tmp_path}/none.jpg: No such file or directory"
    rows = [line.split("\t") for line in printed.stdout.splitlines()]
    assert [row[0] for row in rows] == paths and [row[1] for row in rows] == model.predict(paths)
    confidence = [float(row[2]) for row in rows]
    np.testing.assert_allclose(confidence, model.predict_proba(paths).max(1), atol=1e-3)
    assert json.loads((Path(exported.folder) / "labels.json").read_text()) == model.classes
    usage = run_script(exported.folder)
    assert (usage.returncode, usage.stderr) == (2, "usage: python predict_onnx.py IMAGE ...\n")


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"progressive": True}, {"mode": "CMYK"}], ids=str)
@pytest.mark.parametrize("sides", [(461, 606), (458, 602)], ids=str)
def test_the_script_reduces_photographs_as_predict_does(options, sides, tmp_path):
    """At a quarter of sides that four does not divide."""
    script = runpy.run_path(str(resources.files("animalclf.export") / "templates" / "predict_onnx.py"))
    options = dict(options)
    mode = options.pop("mode", "RGB")
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(1, *sides)).convert(mode).save(file, exif=exif, **options)
    pixels, expected = script["pixels_of"](file, 112), decode(file.read_bytes(), min_side=112)
    assert expected.scale == 4 and pixels.shape == expected.image.shape
    difference = np.abs(pixels.astype(int) - expected.image)
    assert difference.max() <= 1 and np.mean(difference > 0) < (1e-3 if mode == "RGB" else 0.1)


def exif_data(*entries):
    """EXIF data with entries (tag, type, count, four bytes)."""
    packed = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + b"\0\0\0\0"


TURNED = (0x112, 3, 1, b"\6\0\0\0")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "suffix, options",
    [
        *((suffix, {"exif": exif_data(TURNED)}) for suffix in ("png", "tif", "jpg")),
        ("png", {"exif": exif_data(TURNED, (0x11A, 2, 4, b"72d\0"))}),  # a resolution that is text
        ("png", {"exif": exif_data((0x112, 11, 1, struct.pack("<f", 6)))}),
        ("png", {"exif": exif_data((0x112, 9, 1, struct.pack("<i", -6)))}),
        ("jpg", {"xmp": XMP}),
        ("png", {"alpha": 0}),
        ("png", {"alpha": 1}),
        *((suffix, {"bits": bits}) for suffix in ("png", "tif") for bits in (12, 16)),
    ],
)
def test_the_script_decodes_odd_files_as_predict_does(suffix, options, tmp_path):
    script = runpy.run_path(str(resources.files("animalclf.export") / "templates" / "predict_onnx.py"))
    file, image = tmp_path / f"a.{suffix}", Image.fromarray(photo(1, 40, 60))
    options = dict(options)
    if "alpha" in options:
        image.putalpha(options.pop("alpha"))
    if "bits" in options:
        shift = options.pop("bits") - 8
        image = Image.fromarray((np.asarray(image)[:, :, 0].astype(np.uint16) << shift) + 3)
    image.save(file, **options)
    pixels, expected = script["pixels_of"](file, 64), decode(file.read_bytes()).image
    assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() <= 1


def test_the_script_refuses_pixels_that_pillow_would_clip(tmp_path):
    script = runpy.run_path(str(resources.files("animalclf.export") / "templates" / "predict_onnx.py"))
    for number, values in enumerate([np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)]):
        Image.fromarray(values).save(file := tmp_path / f"{number}.tif")
        with pytest.raises(ValueError, match="32 bits a channel"):
            script["pixels_of"](file, 64)


def test_photographs_of_thin_images_stay_small(tmp_path):
    assert max(Image.open(save_varied(photo(1, 8, 200), 0, tmp_path, 64)).size) < 400


def test_safetensors_have_the_weights_and_what_else_a_model_needs(trained_run, tmp_path):
    from safetensors import safe_open

    import animalclf

    animalclf.export(trained_run, to="safetensors", out=tmp_path)
    model = animalclf.load(trained_run)._classifier
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        state = model.state_dict()
        assert set(file.keys()) == set(state)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in state.items())
    assert float(metadata["temperature"]) == model.temperature
    configuration.from_dict(json.loads(metadata["config"]))


def test_other_files_of_the_folder_are_not_replaced_without_a_word(trained_run, tmp_path, capsys):
    import animalclf

    (tmp_path / "model.onnx").write_bytes(b"earlier")
    (tmp_path / "predict_onnx.py").write_bytes(b"earlier")
    for _ in range(2):
        animalclf.export(trained_run, to="safetensors", out=tmp_path)
    text = capsys.readouterr().err
    assert "model.onnx is of an earlier export" in text and "predict_onnx.py is of an earlier export" in text
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(UserError, match=r"README\.md: is not the model card of an export"):
        animalclf.export(trained_run, to="safetensors", out=tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project"


def test_the_card_has_the_metrics_and_the_licence_of_the_weights(trained_run, tmp_path):
    import animalclf

    animalclf.export(trained_run, to="safetensors", out=tmp_path)
    text = (tmp_path / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    metrics = {row["type"]: row["value"] for row in head["model-index"][0]["results"][0]["metrics"]}
    assert metrics["balanced_accuracy"] == pytest.approx(
        Run(trained_run).result().metrics["balanced_accuracy"], abs=1e-4
    )
    assert head["license"] == "other" and "no weights of others" in text and "predict_onnx" not in text


@pytest.mark.parametrize(
    "name, weights, tag",
    [
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", "cc-by-nc-4.0"),
        ("resnet18", "imagenet", "other"),
        ("efficientnet_lite0", "embedded", "apache-2.0"),
        ("resnet18", "mine.pth", "other"),
    ],
)
def test_licences(name, weights, tag):
    from animalclf.config import Model
    from animalclf.export.card import licence

    model_licence = licence(Model(name=name, weights=weights))
    assert model_licence.tag == tag and model_licence.text.endswith(".")


def test_refused(trained_run, tmp_path, monkeypatch):
    import animalclf

    with pytest.raises(UserError, match=r"onx.*did you mean 'onnx'"):
        animalclf.export(trained_run, to="onx")
    unfinished = shutil.copytree(trained_run, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(UserError, match=r"not finished.*resume"):
        animalclf.export(unfinished)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript is not installed.*animalclf\[export\]"):
        animalclf.export(trained_run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

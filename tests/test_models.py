"""Models: the reference notebook's tables, freezing, weights, any number of classes."""

import io
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torchvision

import animalclf
from animalclf import architectures
from animalclf import config as configuration
from animalclf.config import Model
from animalclf.errors import UserError
from animalclf.models import MODELS, build, weights
from animalclf.models.classifier import Classifier, count_parameters, layer_names
from animalclf.training import checks, launch
from animalclf.training.resources import Workers
from animalclf.utils import storage
from tests.helpers import tiny_prepared

# The reference notebook's two tables: layer, output shape without the batch axis, parameters.
BIG_CNN = """
InputLayer 128,128,3 0
Conv2D 126,126,32 896
Conv2D_1 124,124,64 18496
BatchNormalization 124,124,64 256
MaxPooling2D 62,62,64 0
Conv2D_2 60,60,128 73856
Conv2D_3 58,58,256 295168
BatchNormalization_1 58,58,256 1024
MaxPooling2D_1 29,29,256 0
Conv2D_4 27,27,256 590080
Conv2D_5 25,25,512 1180160
BatchNormalization_2 25,25,512 2048
MaxPooling2D_2 12,12,512 0
Conv2D_6 10,10,512 2359808
Conv2D_7 8,8,1024 4719616
BatchNormalization_3 8,8,1024 4096
MaxPooling2D_3 4,4,1024 0
Flatten 16384 0
Dense 512 8389120
Dense_1 256 131328
Dropout 256 0
Dense_2 64 16448
Dense_3 10 650
"""
VGG16 = """
vgg16_(Functional) 7,7,512 14714688
Flatten 25088 0
Dense 512 12845568
Dense_1 256 131328
Dropout 256 0
Dense_2 128 32896
Dense_3 10 1290
"""


class Layer(NamedTuple):
    """A row of Keras's summary: `shape` is channels last, without the batch axis; `params` includes BatchNorm's moving
    statistics."""

    name: str
    shape: tuple[int, ...]
    params: int


KERAS = {
    torch.nn.Conv2d: "Conv2D",
    torch.nn.BatchNorm2d: "BatchNormalization",
    torch.nn.MaxPool2d: "MaxPooling2D",
    torch.nn.Flatten: "Flatten",
    torch.nn.Linear: "Dense",
    torch.nn.Dropout: "Dropout",
}


def layer_table(model: Classifier, base_name: str = "") -> list[Layer]:
    """The layers in order, as Keras's summary lists them (activations belong to their layer); with `base_name` the base
    is one row."""
    rows, occurrences, hooks = (
        [Layer("InputLayer", (model.input_size, model.input_size, 3), 0)],
        dict.fromkeys(KERAS.values(), 0),
        [],
    )

    def record(name: str) -> Callable[[torch.nn.Module, object, torch.Tensor], None]:
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            channels, *sides = output.shape[1:]
            rows.append(Layer(name, (*sides, channels), count_parameters(module)))

        return hook

    for part in (model.base, model.head):
        if part is model.base and base_name:
            hooks.append(part.register_forward_hook(record(base_name)))
            continue
        for module in part.children():
            kind = KERAS.get(type(module))
            if kind:
                number, occurrences[kind] = occurrences[kind], occurrences[kind] + 1
                hooks.append(module.register_forward_hook(record(f"{kind}_{number}" if number else kind)))
    training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, model.input_size, model.input_size, 3, dtype=torch.uint8, device=model.mean.device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return rows


def rows_of(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return [(name.replace("_(", " ("), tuple(map(int, shape.split(","))), int(params)) for name, shape, params in rows]


def recipe(name, *sets):
    return configuration.load(name, {"model.weights": "none"} | configuration.parse_sets(sets)).model


def test_big_cnn_has_the_layers_of_the_reference_notebook():
    model = build(recipe("big_cnn"), 10)
    assert [tuple(row) for row in layer_table(model)] == rows_of(BIG_CNN)
    assert count_parameters(model) == 17_783_050 == sum(params for _, _, params in rows_of(BIG_CNN))


def test_vgg16_has_the_layers_of_the_reference_notebook():
    model = build(recipe("vgg16"), 10)
    assert [tuple(row) for row in layer_table(model, "vgg16 (Functional)")][1:] == rows_of(VGG16)
    assert count_parameters(model) == 27_725_770


def test_trainable_layers_of_vgg16():
    head = 27_725_770 - 14_714_688
    block5, block4_conv3 = 3 * (512 * 512 * 9 + 512), 512 * 512 * 9 + 512
    assert count_parameters(build(recipe("vgg16"), 10), trainable_only=True) == head + block5
    assert (
        count_parameters(build(recipe("vgg16_notebook"), 10), trainable_only=True)
        == head + block5 + block4_conv3
        == 22_450_314
    )


def test_keras_constants():
    model = build(recipe("big_cnn"), 10)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.eps == 1e-3 and norm.momentum == pytest.approx(0.01) for norm in norms)
    dense = model.head.dense0
    limit = (6 / (16384 + 512)) ** 0.5  # Glorot uniform
    assert dense.weight.abs().max() <= limit and dense.weight.abs().max() > 0.99 * limit and not dense.bias.any()
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.2]
    assert [m.p for m in build(recipe("vgg16"), 10).modules() if isinstance(m, torch.nn.Dropout)] == [0.1]


def test_preprocessing_belongs_to_the_model():
    images = torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8)
    inputs_of_base = []
    for name in ("big_cnn", "vgg16_pooled"):
        model = build(Model(name=name, input_size=76), 3).eval()
        model.base.register_forward_pre_hook(lambda module, inputs: inputs_of_base.append(inputs[0]))
        assert torch.equal(model(images), model(images.float()))
    assert torch.allclose(inputs_of_base[0], images.permute(0, 3, 1, 2) / 255)
    assert inputs_of_base[0].is_contiguous(memory_format=torch.channels_last)
    # Keras's vgg16.preprocess_input, in RGB order: minus the mean, no scaling.
    mean = torch.tensor([0.48235, 0.45882, 0.40784]).view(1, 3, 1, 1) * 255
    assert torch.allclose(inputs_of_base[2], images.permute(0, 3, 1, 2) - mean, atol=1e-4)


def test_the_memory_order_is_a_setting():
    model = build(Model(name="big_cnn", input_size=76), 3).eval()
    images, orders = torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8), []
    model.base.block1_conv1.register_forward_hook(
        lambda module, inputs, output: orders.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    expected = model(images)
    model.channels_last = False
    assert torch.allclose(model(images), expected, atol=1e-5) and orders == [True, False]


def test_float32_logits_under_autocast_with_and_without_the_base():
    model = build(Model(name="vgg16_pooled", input_size=32, trainable=("head",)), 3).eval()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(images)
        assert model(images).dtype == model.head(features).dtype == torch.float32
    assert torch.equal(model(images), model.head(model.features(images)))


def test_names_and_weights_are_checked_without_pytorch(tmp_path):
    """The check runs before Ray starts; PyTorch, whose import takes seconds, is imported while Ray starts."""
    (tmp_path / "vgg.pth").touch()
    sets = f"{{'model.weights': {str(tmp_path / 'vgg.pth')!r}}}"
    code = (
        "import sys\nfrom animalclf import config\nfrom animalclf.training import checks\n"
        f"checks.resolve_config(config.load('vgg16', {sets}))\n"
        "checks.resolve_config(config.load('quick', {'model.weights': 'none'}))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(architectures.OWN) == set(MODELS.names())


@pytest.mark.parametrize(
    ("name", "classes"), [(name, 2 + 18 * (number % 2)) for number, name in enumerate(MODELS.names())]
)
def test_a_step_on_any_number_of_classes(name, classes):
    model = build(Model(name=name, input_size=76, trainable=("head",)), classes)
    logits = model(torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8))
    assert logits.shape == (2, classes) and logits.dtype == torch.float32
    logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    drops = [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    assert [p for p in drops if p] == [0.2]  # the recipe's, and not torchvision's
    restored = build(Model(name=name, input_size=76), classes)
    restored.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8)
    assert torch.equal(restored.eval()(images), model.eval()(images))


def test_frozen_layers_stay_as_they_are():
    model = build(Model(name="resnet18", input_size=64, trainable=("layer4", "head")), 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)).sum().backward()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    # Only the BatchNorm statistics of the trainable layers change.
    assert changed and all("layer4" in name for name in changed)
    assert not model.frozen_features
    assert build(Model(name="resnet18", input_size=64, trainable=("head",)), 3).frozen_features


def test_a_frozen_part_has_no_randomness():
    model = build(Model(name="efficientnet_b0", input_size=64, trainable=("features.7", "head")), 3).train()
    random_layers = [
        name
        for name, layer in model.base.named_modules()
        if isinstance(layer, torchvision.ops.StochasticDepth) and layer.training
    ]
    assert random_layers == ["features.7.0.stochastic_depth"]


def test_a_number_in_a_layers_name_counts_as_a_whole():
    model = build(Model(name="mobilenet_v3_large", input_size=64, trainable=("features.1", "head")), 3)
    assert {name.split(".")[2] for name, p in model.base.named_parameters(prefix="base") if p.requires_grad} == {"1"}
    assert (
        count_parameters(build(Model(name="vgg16", input_size=32, trainable=("block1_conv",)), 3), trainable_only=True)
        == 1792 + 36928
    )


def test_no_autograd_below_the_last_block():
    model = build(Model(name="vgg16", input_size=64, trainable=("block5", "head")), 3).train()
    requires_grad = {}
    for name in ("block4_conv3", "block5_conv1"):
        model.base.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: requires_grad.update({name: output.requires_grad})
        )
    model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert requires_grad == {"block4_conv3": False, "block5_conv1": True}


def test_wrong_names_are_refused_with_the_right_ones():
    with pytest.raises(UserError, match="did you mean 'vgg16'"):
        build(Model(name="vgg_16"), 10)
    with pytest.raises(UserError, match="block5_conv1"):
        build(Model(name="vgg16", input_size=64, trainable=("block6",)), 10)
    with pytest.raises(UserError, match="no layer is called ''"):
        build(Model(name="vgg16", input_size=64, trainable=("",)), 10)
    with pytest.raises(UserError, match=r"model\.input_size: 64 is too small"):
        build(Model(name="big_cnn", input_size=64), 10)
    with pytest.raises(UserError, match="no pretrained weights"):
        build(Model(name="big_cnn", weights="imagenet"), 10)
    assert "big_cnn" in MODELS and "head.logits" in layer_names(build(Model(input_size=76), 2))


@pytest.fixture(scope="module")
def oxford():
    """Weights as torchvision names them, float16."""
    features = torchvision.models.vgg16(weights=None).features
    return {f"features.{name}": value.half() for name, value in features.state_dict().items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path / "hub" / "hub" / "checkpoints"


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_weights_from_a_file(tmp_path, oxford, prefix):
    state = {f"{prefix}{name.removeprefix('features.')}": value for name, value in oxford.items()}
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    model = build(Model(name="vgg16_pooled", input_size=32, weights=str(path)), 5)
    loaded = [p for layer in model.base if isinstance(layer, torch.nn.Conv2d) for p in (layer.weight, layer.bias)]
    assert len(loaded) == 26 and all(
        torch.equal(parameter, stored.float()) for parameter, stored in zip(loaded, state.values(), strict=True)
    )
    del state[f"{prefix}0.bias"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"block1_conv1\.bias missing"):
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a readable file of weights"):
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    with pytest.raises(UserError, match="no such file"):
        build(Model(name="vgg16", input_size=32, weights=str(tmp_path / "none.pth")), 5)
    with pytest.raises(UserError, match="cannot be read"):
        build(Model(name="vgg16", input_size=32, weights=str(tmp_path)), 5)
    torch.save({"features.norm0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not fit this architecture"):
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)


WRONG_WEIGHTS = {
    "another architecture": (
        lambda: torchvision.models.mobilenet_v3_small(weights=None).state_dict(),
        r"does not fit this architecture: conv1\.weight missing, .*The file holds 246 tensors "
        r"\(features\.0\.0\.weight \(16, 3, 3, 3\), .*"
        r"the architecture has 122 tensors \(conv1\.weight \(64, 3, 7, 7\), ",
    ),
    "a checkpoint": (
        lambda: {"epoch": 3, "state_dict": {"conv1.weight": torch.zeros(2)}},
        r"not a state dict .*holds a dict with the keys epoch, state_dict \(a state dict\)\. Save .*torch\.save",
    ),
    "a tensor": (lambda: torch.zeros(3), "it holds a Tensor"),
    "nothing": (dict, r"holds no tensors\. Save the state dict"),
    "a module": (lambda: torch.nn.Linear(2, 2), r"it holds Python objects\); save the tensors alone: torch\.save"),
    "not finite": (
        lambda: {name: value / 0 for name, value in torchvision.models.resnet18(weights=None).state_dict().items()},
        r"conv1\.weight has NaN or infinite values",
    ),
    "truncated": (lambda: torchvision.models.resnet18(weights=None).state_dict(), "not a readable file of weights"),
}


def stored_archive(name):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"x" * 100)
    return sink.getvalue()


FOREIGN_WEIGHTS = {
    "empty": (b"", r"\(it is empty\); get it again or remove it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(64), r"\(it is an HDF5 file, as Keras writes\); save the tensors alone"),
    "safetensors": (
        (72).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(72) + bytes(4),
        r"\(it is a safetensors file\); save the tensors alone: torch\.save",
    ),
    "a pickle": (pickle.dumps({"a": Path("x")}), r"\(it holds Python objects\); save the tensors alone: torch\.save"),
    "a page": (b"<!doctype html><html>", r"not a readable file of weights \(it is a web page\); get it again"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "get the file with: git lfs pull"),
    "TorchScript": (stored_archive("net/constants.pkl"), r"\(it is a TorchScript archive\); save the tensors alone"),
    "zeros": (bytes(1000), "not a readable file of weights"),
    "an archive": (b"PK\3\4" + bytes(100), "not a readable file of weights"),
}


@pytest.mark.parametrize("name", FOREIGN_WEIGHTS)
def test_files_that_are_no_weights_of_pytorch_are_named(tmp_path, name):
    content, message = FOREIGN_WEIGHTS[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    assert str(path) in str(refused.value) and str(refused.value).isprintable()


def test_any_error_of_a_damaged_file_of_weights_names_it(tmp_path, monkeypatch):
    def load(*_, **__):
        raise TypeError("_rebuild_tensor_v2() missing 2 arguments")  # as for a flipped bit of the pickle

    torch.save({}, tmp_path / "weights.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=r"weights\.pth: not a readable file of weights \(_rebuild_tensor_v2"):
        build(Model(name="vgg16", input_size=32, weights=str(tmp_path / "weights.pth")), 5)


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_are_refused_before_the_run_folder_is_written(tmp_path, name):
    content, message = WRONG_WEIGHTS[name]
    prepared = tiny_prepared(tmp_path / "prepared", (6, 6), size=36)
    path, folder = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(content(), path)
    if name == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    config = configuration.load("resnet18", {"model.weights": str(path), "model.input_size": 32, "train.epochs": 1})
    run = checks.lock_run(str(folder), config, resume=False)
    with pytest.raises(UserError, match=rf"^model\.weights: {path}: .*{message}"):
        launch.start_training(config, prepared, run, Workers.fixed(1), True, True, lambda event: None)
    run.unlock()
    assert not folder.exists()


def test_weights_of_one_recipe_for_all_name_the_recipe_that_they_do_not_fit(tmp_path, monkeypatch):
    """Before the images are read."""
    monkeypatch.setattr("animalclf.tuning.compare._prepare", lambda *_: pytest.fail("the images were read"))
    monkeypatch.setattr("animalclf.tuning.compare.cluster.ensure_ray", lambda *_: None)
    monkeypatch.setattr("animalclf.tuning.compare.cluster_size.max_resources", dict)
    monkeypatch.setattr("animalclf.tuning.compare.preflight", lambda *_: "")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "weights.pth")
    values = {"model.weights": str(tmp_path / "weights.pth"), "model.input_size": 32}
    with pytest.raises(UserError, match=r"^vgg16: .* does not fit .*; set applies to all recipes; .*comparison file"):
        animalclf.compare("photos", recipes=["resnet18", "vgg16"], set=values, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_below_a_file_are_named(tmp_path):
    (tmp_path / "file").touch()
    config = configuration.load("resnet18", {"model.weights": str(tmp_path / "file" / "weights.pth")})
    with pytest.raises(UserError, match=r"^model\.weights: .*file/weights\.pth: no such file"):
        checks.resolve_config(config)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])  # of DataParallel and torch.compile
def test_weights_that_fit_pass_the_check(tmp_path, prefix):
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "weights.pth")
    config = configuration.load("resnet18", {"model.weights": str(tmp_path / "weights.pth"), "model.input_size": 32})
    launch.check_model(config, 2, load_weights=True)


def test_the_file_that_torchvision_offers_loads_by_its_path_too(tmp_path, oxford):
    path = tmp_path / "vgg16_features-amdegroot-88682ab5.pth"  # it also has a classifier, of NaN
    torch.save(
        {
            **oxford,
            "classifier.0.weight": torch.full((2, 2), torch.nan),
            "classifier.0.bias": torch.full((2,), torch.nan),
        },
        path,
    )
    model = build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    assert torch.equal(model.base.block5_conv3.weight, oxford["features.28.weight"].float())


def test_a_backbones_weights_fit_any_number_of_classes(tmp_path):
    donor = torchvision.models.resnet18(weights=None)
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    model = build(Model(name="resnet18", input_size=32, weights=str(tmp_path / "resnet18.pth")), 7)
    assert torch.equal(model.base.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 7)


def test_a_failed_download_names_the_remedy(monkeypatch, hub):
    def refuse(*arguments, **named):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    for action in (
        lambda: build(Model(name="vgg16", input_size=32, weights="imagenet"), 5),
        lambda: weights.check("vgg16", "imagenet"),
    ):
        with pytest.raises(
            UserError, match=rf"https://.*vgg16_features-.*\.pth.*{hub}.*model\.weights=PATH.*model\.weights=none"
        ):
            action()


def test_one_process_downloads_and_the_others_wait(monkeypatch, hub, oxford, capsys):
    calls = []

    def download(url, **named):
        print("Downloading")  # as PyTorch does
        calls.append((url, named["check_hash"], named["weights_only"]))
        torch.save(oxford, hub / url.rpartition("/")[2])

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    ranks = [threading.Thread(target=weights.check, args=("vgg16_pooled", "imagenet")) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert calls == [(torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.url, True, True)]
    assert capsys.readouterr() == ("", "Downloading\n")
    model = build(Model(name="vgg16_pooled", input_size=32, weights="imagenet"), 3)
    assert torch.equal(model.base.block1_conv1.bias, oxford["features.0.bias"].float())


def test_a_damaged_download_is_named(hub):
    hub.mkdir(parents=True)
    weights.torchvision_file("vgg16").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=rf"{hub}/vgg16_features-.*not a readable file of weights"):
        build(Model(name="vgg16", input_size=32, weights="imagenet"), 5)


def test_wrong_weights_are_refused_before_any_work(tmp_path):
    for architecture, source, message in (
        ("big_cnn", "imagenet", "no pretrained weights for big_cnn"),
        ("vgg16", str(tmp_path), "a folder"),
        ("vgg16", str(tmp_path / "absent.pth"), "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            weights.check(architecture, source)


def test_a_remote_file_is_fetched_once_a_version(hub, oxford, tmp_path, monkeypatch):
    url, reads = "memory://models/weights/vgg.pth", []
    read = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda source: (reads.append(source), read(source))[1])
    for bias, expected in ((0.0, 1), (0.0, 1), (1.0, 2)):
        if expected != len(reads):
            torch.save({**oxford, "features.0.bias": torch.full((64,), bias)}, tmp_path / "vgg.pth")
            storage.write_bytes(url, (tmp_path / "vgg.pth").read_bytes())
        assert weights.fetch("vgg16", url)["features.0.bias"].unique().tolist() == [bias]
        assert len(reads) == expected
    weights.check("vgg16", url)
    with pytest.raises(UserError, match="no such file"):
        weights.check("vgg16", "memory://models/weights/absent.pth")


@pytest.mark.sample
def test_the_real_weights_make_real_features(sample_data):
    import cv2

    images, labels = [], []
    for label in ("ragno", "farfalla"):
        import glob

        for path in sorted(glob.glob(f"{sample_data}/animals10_sample/{label}/*"))[:12]:
            images.append(cv2.resize(cv2.imread(path)[:, :, ::-1], (128, 128), interpolation=cv2.INTER_AREA))
            labels.append(label)
    path = f"{sample_data}/vgg16_imagenet_features.pth"
    model = build(Model(name="vgg16_pooled", input_size=128, weights=path, trainable=("head",)), 2).eval()
    stored = torch.load(path, weights_only=True)
    assert torch.equal(model.base.block3_conv2.weight, stored["features.12.weight"].float())
    import numpy as np

    features = model.features(torch.from_numpy(np.stack(images))).detach()
    alike = features @ features.T
    alike.fill_diagonal_(-1)
    nearest = alike.argmax(1)
    assert sum(labels[i] == labels[n] for i, n in enumerate(nearest)) >= 20  # of 24; random weights give about 12

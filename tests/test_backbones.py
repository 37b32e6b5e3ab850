"""Networks of torchvision and timm as backbones: each builds, freezes and trains a step; pooling, weights, errors."""

import os
import sys
from dataclasses import replace

import pytest
import torch
import torchvision

from animalclf import architectures
from animalclf import config as configuration
from animalclf.config import Model
from animalclf.errors import UserError
from animalclf.models import build, weights
from animalclf.models.classifier import layer_names
from animalclf.training import fine_tuning

NAMES = [name for name in architectures.torchvision_names() if name != "vgg16"]  # which is the reference notebook's
FAMILIES = (  # one network of each file of torchvision, or two if the file has two kinds
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32"),
)
# Every network with real weights takes 10 minutes and 6 GB; docs/recipes.md has what passed.
EVERY = os.environ.get("ANIMALCLF_ALL_BACKBONES") == "1"


def smallest_size(name):
    """An input size that the network takes, as small as it goes."""
    step = architectures.input_step(name)
    return -(-32 // step) * step if step > 1 else 80 if name in ("alexnet", "inception_v3") else 32


def spec(name, **settings):
    return Model(**{"name": name, "input_size": smallest_size(name), "trainable": ("head",)} | settings)


def images(size, count=2):
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)


def test_every_classifier_of_torchvision_has_its_preprocessing_and_its_shape():
    """On the meta device, which computes shapes alone."""
    assert len(NAMES) >= 79
    for name in NAMES:
        with torch.device("meta"):
            model = build(spec(name), 3).train()
            features = model.features(torch.empty(2, model.input_size, model.input_size, 3))
        assert features.shape == (2, model.head.logits.in_features), name
        assert model.frozen_features and not any(layer.training for layer in model.base.modules()), name
        pretrained = architectures.pretrained(name)
        assert pretrained.url.startswith("https://") and 224 <= pretrained.input_size <= 600
        settings = configuration.load(f"features:{name}")
        assert settings.model.input_size >= pretrained.input_size or settings.keeps_shape
        assert settings.keeps_shape == model.any_shape
        assert settings.model.input_size % architectures.input_step(name) == 0


@pytest.mark.parametrize("name", NAMES if EVERY else FAMILIES)
def test_a_backbone_freezes_and_its_head_trains(name):
    model = build(spec(name), 3).train()
    batch = images(model.input_size, 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.nn.functional.cross_entropy(model(batch), torch.arange(4) % 3).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    trained = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert changed <= trained == {"head.logits.weight", "head.logits.bias"} and changed
    assert [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout) and layer.p] == [0.2]
    if model.any_shape:
        oblong = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
        assert model.eval().features(oblong).shape[1] == model.head.logits.in_features
    assert {"head.logits"} < set(layer_names(model))


# The first weights of the head with seed 0, drawn after those of the base, of the names that were there first.
FIRST_WEIGHTS = {
    "convnext_tiny": [0.015638, 0.022223, 0.002371],
    "efficientnet_b0": [0.015972, -0.008384, 0.007003],
    "mobilenet_v3_large": [-0.0038, 0.014006, -0.012896],
    "resnet18": [0.034164, -0.025534, 0.024931],
    "resnet34": [0.019154, -0.007365, 0.008406],
    "resnet50": [0.006697, -0.006068, 0.018278],
}


@pytest.mark.parametrize("name", FIRST_WEIGHTS)
def test_a_seed_draws_the_weights_that_it_always_drew(name):
    torch.manual_seed(0)
    weight = build(Model(name=name, input_size=32), 3).head.logits.weight[0, :3]
    torch.testing.assert_close(weight.detach(), torch.tensor(FIRST_WEIGHTS[name]), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"]
)
@pytest.mark.parametrize("pool", ["mean", "max", "mean_max", "gem"])
def test_pooling(name, pool):
    torch.manual_seed(0)
    model = build(spec(name, pool=pool, input_size=64), 3).eval()
    maps = []
    pools = [layer for layer in model.base.modules() if type(layer).__name__ == "GlobalPool"]
    pools[0].register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
    with torch.no_grad():
        features = model.features(images(64))
    (last,), channels = maps, maps[0].shape[1]
    mean, largest = last.mean((2, 3)), last.amax((2, 3))
    expected = {
        "mean": mean,
        "max": largest,
        "gem": last.clamp_min(1e-6).pow(3).mean((2, 3)).pow(1 / 3),
        "mean_max": torch.cat([each / each.norm(dim=1, keepdim=True) for each in (largest, mean)], 1) * channels**0.5,
    }[pool]
    torch.testing.assert_close(features, expected)
    assert model.head.logits.in_features == features.shape[1]


def test_the_mean_pool_is_the_networks_own_where_it_has_one():
    batch = images(64)
    for name in ("resnet18", "densenet121", "mobilenet_v2", "efficientnet_lite0"):
        features = []
        for pool in ("auto", "mean"):
            torch.manual_seed(0)
            with torch.no_grad():
                features.append(build(spec(name, pool=pool, input_size=64), 3).eval().features(batch))
        torch.testing.assert_close(*features)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"name": "vit_b_16", "input_size": 100},
            r"model\.input_size: vit_b_16 takes squares of a multiple of 16 px, not 100; set 96",
        ),
        ({"name": "maxvit_t", "input_size": 256}, r"maxvit_t takes squares of a multiple of 224 px, not 256; set 224"),
        ({"name": "inception_v3", "input_size": 64}, r"64 is too small for inception_v3; at least 75"),
        (
            {"name": "vit_b_16", "input_size": 32, "pool": "mean"},
            r"model\.pool=mean: vit_b_16 has tokens and no feature map",
        ),
        ({"name": "vgg16", "pool": "gem"}, r"model\.pool=gem: vgg16 flattens its last map; set model\.pool=auto"),
        ({"name": "big_cnn", "pool": "max"}, r"model\.pool=max: big_cnn flattens"),
        ({"name": "resnet_18"}, r"did you mean 'resnet18'.*every classifier of torchvision"),
        ({"name": "vit_b16"}, r"did you mean 'vit_b_16'"),
    ],
)
def test_what_a_network_does_not_take_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(Model(**settings), 3)


def test_images_of_any_shape_are_refused_for_networks_that_need_squares():
    with pytest.raises(
        UserError, match=r"vit_b_32 cannot compute on images of different shapes; .*data\.resize=squash"
    ):
        build(spec("vit_b_32"), 3, keep_shape=True)


def test_a_vits_positions_fit_another_input_size(tmp_path):
    donor = torchvision.models.vit_b_32(weights=None, image_size=64)
    state = donor.state_dict()
    for number in (0, 3):  # as torchvision's own files name the layers of the perceptrons
        old = f"linear_{1 if number == 0 else 2}"
        state = {key.replace(f".mlp.{number}.", f".mlp.{old}."): value for key, value in state.items()}
    torch.save(state, tmp_path / "vit.pth")
    same, other = (
        build(Model(name="vit_b_32", input_size=size, weights=str(tmp_path / "vit.pth")), 3) for size in (64, 96)
    )
    assert torch.equal(same.base.encoder.pos_embedding, donor.encoder.pos_embedding)
    assert torch.equal(same.base.encoder.layers[3].mlp[3].weight, donor.encoder.layers[3].mlp[3].weight)
    assert other.base.encoder.pos_embedding.shape == (1, 10, 768)
    torch.save({**state, "encoder.pos_embedding": torch.zeros(1, 4, 768)}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"does not fit this architecture: .*pos_embedding"):
        build(Model(name="vit_b_32", input_size=64, weights=str(tmp_path / "vit.pth")), 3)


def test_files_of_torchvision_load_under_their_old_names_and_without_auxiliary_classifiers(tmp_path):
    densenet = torchvision.models.densenet121(weights=None)
    old = {}
    for key, value in densenet.state_dict().items():
        head, layer, tail = key.rpartition("denselayer")
        for part in ("norm", "conv"):
            for number in "12":
                tail = tail.replace(f".{part}{number}.", f".{part}.{number}.")
        if not key.endswith("num_batches_tracked"):
            old[head + layer + tail] = value
    torch.save(old, tmp_path / "densenet.pth")
    model = build(spec("densenet121", weights=str(tmp_path / "densenet.pth")), 3)
    assert torch.equal(
        model.base.features.denseblock2.denselayer3.conv2.weight, densenet.features.denseblock2.denselayer3.conv2.weight
    )
    googlenet = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(googlenet.state_dict(), tmp_path / "googlenet.pth")
    model = build(spec("googlenet", weights=str(tmp_path / "googlenet.pth")), 3)
    assert torch.equal(model.base.inception5b.branch1.conv.weight, googlenet.inception5b.branch1.conv.weight)


def test_every_entry_of_weights_has_its_own_preprocessing():
    swag, linear = (architectures.pretrained("vit_b_16", f"IMAGENET1K_SWAG_{kind}_V1") for kind in ("E2E", "LINEAR"))
    assert (swag.input_size, linear.input_size) == (384, 224) and "CC BY-NC 4.0" in swag.licence
    assert (
        architectures.pretrained("vit_b_16").entry == "IMAGENET1K_V1"
        and not architectures.pretrained("vit_b_16").licence
    )
    assert architectures.pretrained("efficientnet_v2_l").mean == (0.5, 0.5, 0.5)
    model = build(Model(name="efficientnet_v2_s", input_size=32), 3)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]) * 255)
    with pytest.raises(UserError, match=r"resnet50 has no 'IMAGENET1K_V3' .*it has IMAGENET1K_V1, IMAGENET1K_V2"):
        weights.check("resnet50", "IMAGENET1K_V3")
    with pytest.raises(UserError, match=r"vgg16 has no 'IMAGENET1K_V1'.*it has IMAGENET1K_FEATURES"):
        weights.check("vgg16", "IMAGENET1K_V1")


def test_a_restrictive_licence_is_printed_before_the_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(url, **named):
        assert "CC BY-NC 4.0" in capsys.readouterr().err
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match="regnet_y_16gf_swag"):
        weights.check("regnet_y_16gf", "IMAGENET1K_SWAG_E2E_V1")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **named: capsys.readouterr().err + url)
    weights.check("regnet_y_16gf", "imagenet")
    assert "CC BY-NC" not in capsys.readouterr().err


def test_recipe_families():
    resnet, vit = configuration.load("features:resnet50"), configuration.load("features:vit_b_16")
    assert (resnet.name, resnet.model.name, resnet.model.weights) == ("features:resnet50", "resnet50", "imagenet")
    assert (resnet.data.resize, resnet.data.stored_size, resnet.model.input_size) == ("keep", 352, 256)
    assert (vit.data.resize, vit.data.stored_size, vit.model.input_size) == ("squash", 224, 224)
    quick, lite = configuration.load("quick"), configuration.load("features:efficientnet_lite2")
    assert configuration.differences(quick, lite) == ["name: quick -> features:efficientnet_lite2"]
    assert configuration.load("features:vgg16", {"model.pool": "gem"}).model.pool == "gem"
    for recipe in ("features:resnet50", "features:vgg16", "features:timm:resnet18.a1_in1k"):
        config = configuration.load(recipe)
        earlier = configuration.to_dict(config) | {"name": recipe.replace(":", "-")}  # of a stored run
        assert config.name == recipe and configuration.from_dict(earlier) == config
    assert configuration.load("quick", {"name": "features-mine"}).name == "features-mine"
    for name, sizes in (("vit_b_16", (252, 224)), ("efficientnet_lite0", (252, 224)), ("swin_t", (252, 224))):
        tuned = configuration.load(f"tuned:{name}")
        assert (tuned.data.stored_size, tuned.model.input_size) == sizes and tuned.train.head_start == "fitted"
        with torch.device("meta"):
            fine_tuning.check(tuned, build(replace(tuned.model, weights="none"), 3))
    for recipe, message in (
        ("features:resnet5", "'resnet5' is not a backbone.*did you mean 'resnet50'"),
        ("feature:resnet50", "unknown recipe.*did you mean 'features'"),
        ("features:", "families: features:BACKBONE, tuned:BACKBONE"),
        ("tuned:resnet5", "'resnet5' is not a backbone.*did you mean 'resnet50'"),
    ):
        with pytest.raises(UserError, match=message):
            configuration.load(recipe)


@pytest.mark.parametrize(
    "name, size, shapes", [("test_resnet", 64, True), ("test_vit", 64, False), ("test_convnext", 64, True)]
)
def test_a_network_of_timm_freezes_and_its_head_trains(name, size, shapes, tmp_path):
    timm = pytest.importorskip("timm")
    donor = timm.create_model(name, num_classes=7, **({} if shapes else {"img_size": size}))
    torch.save(donor.state_dict(), tmp_path / "weights.pth")
    model = build(spec(f"timm:{name}", input_size=size, weights=str(tmp_path / "weights.pth")), 3).train()
    model(images(size)).sum().backward()
    trained = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"head.logits.weight", "head.logits.bias"} and model.any_shape == shapes
    assert (model.frozen_features and name != "test_convnext") or "base.head.norm" in layer_names(model)
    assert all(
        torch.equal(value, model.base.state_dict()[key])
        for key, value in donor.state_dict().items()
        if key in model.base.state_dict()
    )
    pixels = torch.randn(2, 3, size, size)
    donor.reset_classifier(0)
    torch.testing.assert_close(model.base.eval()(pixels), donor.eval()(pixels))
    assert configuration.load(f"features:timm:{name}").keeps_shape == shapes


def test_pooling_and_errors_of_timm(monkeypatch, tmp_path):
    pytest.importorskip("timm")
    widths = [
        build(spec("timm:test_resnet", pool=pool, input_size=64), 3).head.logits.in_features
        for pool in ("mean", "mean_max")
    ]
    assert widths[1] == 2 * widths[0]
    for settings, message in (
        ({"name": "timm:resnet_18"}, r"timm:resnet_18 is unknown \(did you mean 'resnet18'"),
        ({"name": "timm:resnet18.none"}, r"timm has no such weights; it has .*resnet18\.a1_in1k"),
        ({"name": "timm:test_resnet", "pool": "gem"}, r"model\.pool=gem: networks of timm have mean, max, mean_max"),
        ({"name": "timm:test_vit", "input_size": 50}, r"timm:test_vit does not take squares of 50 px"),
    ):
        with pytest.raises(UserError, match=message):
            build(Model(**settings), 3)
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="does not fit this architecture"):
        build(spec("timm:test_resnet", input_size=64, weights=str(tmp_path / "weights.pth")), 3)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'animalclf\[timm\]'"):
        configuration.load("features:timm:resnet18")

"""Every recipe that comes with the package: it opens with its command, loads, builds its model and makes a training
step."""

import json
from dataclasses import replace
from importlib import resources

import pytest
import torch
import torch.nn.functional as F

from animalclf import config as configuration
from animalclf.cli import main
from animalclf.data.augment import is_identity
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.models.classifier import count_parameters, layer_names
from animalclf.models.registry import builder
from animalclf.training.checks import trains_on_features
from animalclf.training.optim import make_optimizer
from benchmarks import from_scratch

RECIPES = configuration.recipe_names()
REFERENCE = {"big_cnn", "big_cnn_balanced", "vgg16", "vgg16_notebook"}


def opening(name):
    first, *lines = resources.files("animalclf.recipes").joinpath(f"{name}.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert all(len(line) <= 120 for line in lines)
    return [line for line in lines if line.startswith("#")]


def test_the_documented_recipes_exist():
    assert REFERENCE | {"vgg16_pooled", "resnet18"} <= set(RECIPES)
    with pytest.raises(UserError, match="did you mean 'vgg16_pooled'"):
        configuration.load("vgg16_poled")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_its_command(name):
    lines = opening(name)
    command = next(line for line in lines if line.startswith("# Run:"))
    assert (
        f"animalclf {'demo' if name == 'demo' else f'train --recipe {name} --data photos/ --out runs/{name}'}"
        in command
    )
    assert name not in REFERENCE or any(line.startswith("# Reference:") for line in lines)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("classes", [2, 20])
def test_a_recipe_makes_a_step(name, classes):
    spec = configuration.load(name)
    assert spec.name == name and builder(spec.model.name)
    small = replace(spec.model, input_size=76 if spec.model.name == "big_cnn" else 32, weights="none")
    torch.manual_seed(0)
    model = build(small, classes).train()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = make_optimizer(model.parameters(), spec.optim)
    images, labels = (
        torch.randint(0, 256, (4, model.input_size, model.input_size, 3), dtype=torch.uint8),
        torch.arange(4) % classes,
    )
    F.cross_entropy(model(images), labels, label_smoothing=spec.optim.label_smoothing).backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(value.requires_grad or torch.equal(value, before[key]) for key, value in after.items())
    assert not torch.equal(after["head.logits.weight"], before["head.logits.weight"])
    assert all(torch.isfinite(value).all() for value in after.values())


def test_big_cnn_modern_is_the_last_step_of_its_benchmark():
    step = from_scratch.cases()["cosine"] | {"name": "big_cnn_modern", "train.select": "last"}
    small = {"model.input_size": 76, "data.stored_size": 84}
    assert configuration.load("big_cnn", step) == configuration.load("big_cnn_modern", small)
    classic, modern = (
        count_parameters(build(configuration.load(name).model, 10)) for name in ("big_cnn", "big_cnn_modern")
    )
    assert classic == modern


def test_the_settings_of_the_reference_notebook():
    cnn, balanced, vgg, notebook = (
        configuration.load(name) for name in ("big_cnn", "big_cnn_balanced", "vgg16", "vgg16_notebook")
    )
    assert (cnn.optim.name, cnn.optim.lr, cnn.optim.eps, cnn.optim.schedule, cnn.train.batch_size) == (
        "adam",
        1e-3,
        1e-7,
        "constant",
        128,
    )
    assert configuration.differences(cnn, balanced) == [
        "name: big_cnn -> big_cnn_balanced",
        "train.balance: none -> class_weights",
    ]
    assert (vgg.optim.lr, vgg.model.input_size, vgg.data.stored_size, vgg.model.dropout, vgg.train.epochs) == (
        1e-4,
        224,
        252,
        0.1,
        20,
    )
    assert (
        vgg.model.weights == "imagenet"
        and vgg.model.trainable == ("block5", "head")
        and vgg.train.balance == "class_weights"
    )
    assert [line.partition(":")[0] for line in configuration.differences(vgg, notebook)] == ["name", "model.trainable"]
    for recipe in (cnn, vgg):
        augment = recipe.augment
        assert (augment.rotation, augment.shift, augment.zoom, augment.flip) == (25, 0.2, (0.6, 1.4), True)


def test_vgg16_pooled_trains_the_head_on_cached_features():
    spec = configuration.load("vgg16_pooled")
    model = build(replace(spec.model, input_size=64, weights="none"), 10)
    assert (
        model.frozen_features
        and count_parameters(model, trainable_only=True) == 1024 * 10 + 10
        and "head.logits" in layer_names(model)
    )
    features = model.features(torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8))
    assert torch.allclose(features.view(3, 2, 512).norm(dim=2), torch.full((3, 2), 512**0.5), rtol=1e-4)
    assert not model.head.logits.weight.any() and not features.requires_grad


@pytest.mark.parametrize("name", RECIPES)
def test_trains_on_features_agrees_with_the_model(name):
    recipe = configuration.load(name)
    with torch.device("meta"):
        model = build(recipe.model, 10, load_weights=False)
    assert trains_on_features(recipe) == (model.frozen_features and is_identity(recipe.augment))


def test_the_command_lists_the_recipes(capsys):
    assert main(["recipes", "--json"]) == 0
    output = capsys.readouterr()
    listed = json.loads(output.out)["recipes"]
    assert [row["recipe"] for row in listed] == [*RECIPES, "features:BACKBONE", "tuned:BACKBONE"]
    for row in listed[:-2]:
        summary = row["summary"].removesuffix(" The default.")
        assert summary.endswith(".") and opening(row["recipe"])[0].startswith(f"# {summary}")
        assert row["recipe"] in output.err
    assert [row["recipe"] for row in listed if "default" in row["summary"]] == ["quick"]


def test_the_command_explains_a_recipe(capsys, tmp_path):
    assert main(["recipes", "vgg16", "--json"]) == 0
    output = capsys.readouterr()
    keys = {row["key"]: row for row in json.loads(output.out)["keys"]}
    assert keys["optim.lr"] | {"doc": ""} == {
        "key": "optim.lr", "value": 1e-4, "default": 1e-3, "changed": True, "kind": "a number, above 0", "doc": ""
    }  # fmt: skip
    assert keys["optim.lr"]["doc"].startswith("Learning rate") and not keys["seed"]["changed"]
    assert "[block5, head]" in output.err and "Learning rate" in output.err
    (tmp_path / "recipe.yaml").write_text("train: {epochs: 3}")
    assert main(["recipes", str(tmp_path / "recipe.yaml"), "--changed", "--json"]) == 0
    assert [row["key"] for row in json.loads(capsys.readouterr().out)["keys"]] == ["train.epochs"]


def test_the_command_names_the_nearest_recipe(capsys):
    assert main(["recipes", "vgg"]) == 2
    assert "did you mean 'vgg16'" in capsys.readouterr().err

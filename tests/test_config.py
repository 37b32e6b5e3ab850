import dataclasses

import pytest

from animalclf import config as configuration
from animalclf.errors import UserError


@pytest.mark.parametrize("recipe", configuration.recipe_names())
def test_every_recipe_survives_a_round_trip(recipe):
    config = configuration.load(recipe)
    assert configuration.from_dict(configuration.to_dict(config)) == config
    assert config.name == recipe


def test_a_written_configuration_is_a_recipe(tmp_path):
    config = configuration.load("big_cnn", ["optim.lr=3e-4", "model.trainable=[block5, head]"])
    path = tmp_path / "config.yaml"
    path.write_text(configuration.to_yaml(config))
    assert configuration.load(str(path)) == config


def test_set_converts_to_the_keys_type():
    config = configuration.load(
        "big_cnn", ["optim.lr=1e-4", "train.epochs=7", "augment.zoom=[1, 1]", "train.channels_last=false", "model.weights=none"]
    )
    assert (config.optim.lr, config.train.epochs, config.augment.zoom) == (1e-4, 7, (1.0, 1.0))
    assert config.train.channels_last is False and config.model.weights == "none"
    assert configuration.load("big_cnn", ["model.trainable=head"]).model.trainable == ("head",)


@pytest.mark.parametrize(
    "sets, expected",
    [
        (["train.epoch=3"], "did you mean 'train.epochs'"),
        (["lr=3"], "optim.lr"),
        (["train.epochs=many"], "train.epochs: 'many' is not a whole number"),
        (["train.epochs=1.5"], "train.epochs: 1.5 is not a whole number"),
        (["train.epochs=0"], "train.epochs: at least 1"),
        (["train.balance=weights"], "class_weights"),
        (["optim.lr=-1"], "optim.lr: above 0"),
        (["augment.flip=1"], "augment.flip: 1 is not true or false"),
        (["augment.zoom=[1,2,3]"], "augment.zoom: wants 2 values"),
        (["data.stored_size=64"], "data.stored_size: 64 is below model.input_size 128"),
        (["train.epochs"], "write it as key=value"),
        (["train=3"], "train: must be a group of keys"),
        (["seed.x=3"], "seed: {'x': 3} is not a whole number"),
        (["data.fold=1"], "data.fold"),
    ],
)
def test_a_wrong_set_is_refused_with_its_key(sets, expected):
    with pytest.raises(UserError, match=r".*") as caught:
        configuration.load("big_cnn", sets)
    assert expected in str(caught.value)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'big_cnn'"):
        configuration.load("bigcnn")
    with pytest.raises(UserError, match="no such recipe file"):
        configuration.load("missing.yaml")


def test_a_recipe_that_is_not_a_mapping_is_refused(tmp_path):
    for text, expected in (("- a", "mapping"), ("a: [", "not valid YAML")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UserError, match=expected):
            configuration.load(str(tmp_path / "x.yaml"))


def test_differences_name_keys_and_both_values():
    one = configuration.load("big_cnn")
    other = dataclasses.replace(one, seed=1, train=dataclasses.replace(one.train, epochs=3))
    assert configuration.differences(one, one) == []
    assert configuration.differences(one, other) == ["seed: 0 -> 1", f"train.epochs: {one.train.epochs} -> 3"]

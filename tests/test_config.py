import dataclasses
import json
import math
import pickle
from pathlib import Path

import jsonschema
import pydantic
import pytest
import yaml

from animalclf import config as configuration
from animalclf.config import reference
from animalclf.config.keys import RENAMED, groups, keys
from animalclf.errors import UserError
from animalclf.models import MODELS
from animalclf.tuning.spec_parsing import build_spec, comparison_tree
from animalclf.utils.yaml_text import parse_list

# Each recipe as the first release wrote it.
RECORDED = Path(__file__).parent / "golden" / "recipes"
STALE = "is stale: run `python -m animalclf.config.reference` and commit what it writes"


@pytest.mark.parametrize("recipe", configuration.recipe_names())
def test_every_recipe_survives_a_round_trip(recipe):
    config = configuration.load(recipe)
    assert configuration.from_dict(configuration.to_dict(config)) == config
    assert config.name == recipe


def test_a_written_configuration_is_a_recipe(tmp_path):
    config = configuration.load("big_cnn", {"optim.lr": 3e-4, "model.trainable": ["block5", "head"]})
    path = tmp_path / "config.yaml"
    path.write_text(configuration.to_yaml(config))
    assert configuration.load(str(path)) == config


def test_set_converts_to_the_keys_type():
    sets = [
        "optim.lr=1e-4",
        "train.epochs=9",
        "train.epochs=7",
        "augment.zoom=[1, 1]",
        "train.channels_last=false",
        "model.weights=none",
    ]
    config = configuration.load("big_cnn", configuration.parse_sets(sets))
    assert (config.optim.lr, config.train.epochs, config.augment.zoom) == (1e-4, 7, (1.0, 1.0))
    assert config.train.channels_last is False and config.model.weights == "none"
    assert configuration.load("big_cnn", {"model.trainable": "head"}).model.trainable == ("head",)


@pytest.mark.parametrize(
    "sets, expected",
    [
        (["train.epoch=3"], "did you mean 'train.epochs'"),
        (["trian={epochs: 3}"], "unknown key trian (did you mean 'train'?)"),
        (["Train.epochs=3"], "unknown key Train (did you mean 'train'?)"),
        (["=3"], "--set =3: write it as key=value"),
        (["train.epochs="], "train.epochs: has no value; it takes a whole number, at least 1"),
        (["train.epochs=1:30"], "train.epochs: '1:30' is not a whole number"),
        (["train={epochs: 3, epochs: 4}"], "the value is not valid YAML: line 1: epochs is given twice"),
        (["lr=3"], "optim.lr"),
        (["train.epochs=many"], "train.epochs: 'many' is not a whole number; it takes a whole number, at least 1"),
        (["data.val=20%"], "data.val: '20%' is not a number; it takes a number, from 0 to below 1"),
        (["train.epochs=1.5"], "train.epochs: 1.5 is not a whole number"),
        (["train.epochs=0"], "train.epochs: at least 1, not 0"),
        (["train.epochs=true"], "train.epochs: True is not a whole number"),
        (["train.epochs=.inf"], "train.epochs: inf is not a whole number"),
        (["model.name=true"], "model.name: True is not text"),
        (["train.balance=weights"], "class_weights"),
        (["optim.lr=-1"], "optim.lr: above 0"),
        (["augment.flip=1"], "augment.flip: 1 is not true or false"),
        (["augment.zoom=[1,2,3]"], "augment.zoom: takes 2 values, got [1, 2, 3]"),
        (["augment.zoom=1"], "augment.zoom: takes 2 values, got 1"),
        (["augment.zoom=[1, a]"], "augment.zoom: 'a' is not a number"),
        (["augment.zoom=[2, 1]"], "augment.zoom: two numbers, the smaller first"),
        (["augment.zoom=[0, 1]"], "augment.zoom: above 0, not 0"),
        (["data.stored_size=64"], "data.stored_size: 64 is below model.input_size 128"),
        (["train.epochs"], "write it as key=value"),
        (["train=3"], "train: must be a group of keys"),
        (["seed.x=3"], "seed: {'x': 3} is not a whole number"),
        (["seed=-1"], "seed: from 0 to below 9223372036854775808, not -1"),
        (["data.fold=1"], "data.fold: a number from 0 to data.folds - 1 = 0"),
        (["data.folds=1"], "data.folds: 0 for none, or at least 2"),
        (
            ["data.val=0.5", "data.test=0.5"],
            "data.val: the validation and test fractions must leave images to train on",
        ),
        (["optim.warmup_epochs=111"], "optim.warmup_epochs: from 0 to train.epochs = 110, not 111"),
        (["optim.lr=.nan"], "optim.lr: nan is not a finite number"),
        (["optim.lr=.inf"], "optim.lr: inf is not a finite number"),
        (["optim.lr=inf"], "optim.lr: inf is not a finite number"),
        (["augment.zoom=[1, .inf]"], "augment.zoom: inf is not a finite number"),
        (["optim.momentum=-.inf"], "optim.momentum: -inf is not a finite number"),
        (["optim.clip_norm=.nan"], "optim.clip_norm: 0 or more, not nan"),
        (
            ["seed=1", "train.epochs=0", "optim.lrr=1"],
            "unknown key optim.lrr (did you mean 'optim.lr'?); train.epochs: at least 1",
        ),
    ],
)
def test_a_wrong_set_is_refused_with_its_key(sets, expected):
    with pytest.raises(UserError, match=r".*") as caught:
        configuration.load("big_cnn", configuration.parse_sets(sets))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train": {"epochs": 1}, "augment": {}, "data": {"near_copies": False}},
        configuration.parse_sets(
            [
                "train={epochs: 2, batch_size: 4}",
                "train={batch_size: 16}",
                "train.epochs=1",
                "data={near_copies: false}",
            ]
        ),
    ],
)
def test_a_group_changes_the_keys_that_it_names(overrides):
    changed = configuration.differences(configuration.load("demo"), configuration.load("demo", overrides))
    assert changed == ["data.near_duplicates: True -> False", "train.epochs: 6 -> 1"]


def test_a_comparison_takes_groups_of_keys():
    tree = {"set": {"data": {"val": 0.5}}, "grid": {"train": {"epochs": [1, 2]}}, "search": {"optim": {"lr": [1, 2]}}}
    spec = build_spec({"recipes": [{"recipe": "demo", "set": {"augment": {"flip": False}}}], "samples": 1, **tree})
    assert spec.data_keys == ("data.val",) and [trial.config.train.epochs for trial in spec.trials] == [1, 2]
    config, demo = spec.trials[0].config, configuration.load("demo")
    assert (config.data.val, config.augment.flip, config.train.batch_size) == (0.5, False, demo.train.batch_size)


def test_the_norm_of_the_gradient_may_be_infinite():
    assert configuration.load("big_cnn", configuration.parse_sets(["optim.clip_norm=.inf"])).optim.clip_norm == math.inf


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 3}\noptim: {lr: 1}\ntrain: {batch_size: 4}", "not valid YAML: line 3: train is given twice"),
        ("train:\n  epochs: 3\n  'epochs': 4", "not valid YAML: line 3: epochs is given twice"),
        (
            "data: {near_copies: true, near_duplicates: false}",
            "data.near_copies: is the older name of data.near_duplicates, which is there too; leave one of them out",
        ),
        ("train.epochs: 3", "unknown key train.epochs; write it in its group, as train: {epochs: ...}"),
        ("null: 3", "unknown key null"),
        ("'': 3", "unknown key ''"),
    ],
)
def test_a_key_has_one_value_in_its_group(text, expected, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        configuration.load(str(tmp_path / "recipe.yaml"))
    assert str(caught.value).endswith(expected)


def test_merged_groups_are_one_group(tmp_path):
    (tmp_path / "merged.yaml").write_text("<<: {seed: 1, train: {epochs: 2}}\nseed: 2")
    config = configuration.load(str(tmp_path / "merged.yaml"))
    assert (config.seed, config.train.epochs) == (2, 2)


def test_numbers_are_decimal_and_text_is_as_written(tmp_path):
    text = "name: 007\ntrain: {epochs: 010}\noptim: {lr: 1e-3}\ndata: {label_column: 2024-01-31, path_column: 1:30}"
    (tmp_path / "recipe.yaml").write_text(text)
    config = configuration.load(str(tmp_path / "recipe.yaml"), configuration.parse_sets(["seed=0100"]))
    assert (config.name, config.train.epochs, config.optim.lr, config.seed) == ("007", 10, 1e-3, 100)
    assert (config.data.label_column, config.data.path_column) == ("2024-01-31", "1:30")
    (tmp_path / "written.yaml").write_text(configuration.to_yaml(config))
    assert configuration.load(str(tmp_path / "written.yaml")) == config
    spec = build_spec({"recipes": ["demo"], "grid": {"train.epochs": parse_list("010,0x1f")}})
    assert [trial.config.train.epochs for trial in spec.trials] == [10, 31]


def test_a_folder_as_recipe_file_is_named(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match=r"folder.yaml: cannot be read as a recipe file"):
        configuration.load(str(tmp_path / "folder.yaml"))


def test_the_key_on_is_text(tmp_path):
    (tmp_path / "recipe.yaml").write_text("augment: {on: device, yes: 1}")
    with pytest.raises(UserError, match=r"^unknown key augment.yes"):
        configuration.load(str(tmp_path / "recipe.yaml"))
    (tmp_path / "recipe.yaml").write_text("augment:\n  on: device\n  flip: off\n")
    augment = configuration.load(str(tmp_path / "recipe.yaml")).augment
    assert (augment.on, augment.flip) == ("device", False)


def test_differences_name_keys_and_both_values():
    config = configuration.load("big_cnn")
    changed = dataclasses.replace(config, seed=1, train=dataclasses.replace(config.train, epochs=3))
    assert configuration.differences(config, config) == []
    assert configuration.differences(config, changed) == ["seed: 0 -> 1", f"train.epochs: {config.train.epochs} -> 3"]


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECORDED.glob("*.yaml")))
def test_recipes_and_the_configurations_of_older_runs_keep_their_values(recipe):
    config, recorded = configuration.load(recipe), (RECORDED / f"{recipe}.yaml").read_text()
    assert configuration.load(str(RECORDED / f"{recipe}.yaml")) == config  # keys that came later have their defaults
    for old, name in RENAMED.items():
        recorded = recorded.replace(f"  {old.removeprefix('data.')}: ", f"  {name.removeprefix('data.')}: ")
    keys = configuration.flatten(yaml.safe_load(recorded))
    values = configuration.flatten(yaml.safe_load(configuration.to_yaml(config)))
    assert [(key, value) for key, value in values.items() if key in keys] == list(keys.items())


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECORDED.glob("*.yaml")))
def test_renamed_keys_leave_the_hashes_of_prepared_sets_as_they_are(recipe):
    recorded = yaml.safe_load((RECORDED / f"{recipe}.yaml").read_text())["data"]
    assert configuration.hashed_json(configuration.load(recipe).data) == json.dumps(recorded, sort_keys=True)


def test_old_names_of_keys_are_read_everywhere(tmp_path):
    assert configuration.data_from_dict({"near_copies": False, "max_bad": 0.5}) == configuration.Data(
        near_duplicates=False, max_unreadable=0.5
    )
    (tmp_path / "old.yaml").write_text("data: {max_bad: 0.5, near_copies: false}")
    config = configuration.load(str(tmp_path / "old.yaml"), {"data.max_unreadable": 0.25})
    assert (config.data.max_unreadable, config.data.near_duplicates) == (0.25, False)
    assert configuration.load("big_cnn", configuration.parse_sets(["data.max_bad=0.5"])).data.max_unreadable == 0.5
    spec = build_spec({"recipes": ["demo"], "set": {"data.max_bad": 0.5}})
    assert spec.data_keys == ("data.max_unreadable",) and spec.trials[0].config.data.max_unreadable == 0.5
    with pytest.raises(UserError, match=r"data.max_unreadable: from 0 to 1, not 2"):
        configuration.load("big_cnn", {"data.max_bad": 2})


def test_a_key_that_an_older_run_lacks_has_its_default():
    assert configuration.from_dict({"model": {"name": "vgg16"}}).augment == configuration.Augment()
    assert configuration.data_from_dict({"stored_size": 252, "val": 0.1}) == configuration.Data(
        stored_size=252, val=0.1
    )
    with pytest.raises(UserError, match=r"unknown key data\.vall \(did you mean 'data\.val'\?\)"):
        configuration.data_from_dict({"vall": 0.1})


def test_a_configuration_is_a_frozen_value():
    config = configuration.load("vgg16")
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config and copy is not config and len({copy, config}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    with pytest.raises(pydantic.ValidationError, match="greater than or equal to 1"):
        dataclasses.replace(config.train, epochs=0)
    with pytest.raises(UserError, match=r"data\.stored_size: 252 is below model\.input_size 300"):
        dataclasses.replace(config, model=dataclasses.replace(config.model, input_size=300))


def outside(key):
    """For each limit of a key: the value nearest to it that is out of range."""
    whole = key.value_kind == "a whole number"
    for name, limit in key.limits.items():
        step = {"gt": 0, "lt": 0, "ge": -1, "le": 1}[name]
        yield limit if step == 0 else limit + step if whole else math.nextafter(limit, step * math.inf)


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(key, value, id=f"{key.name}={value!r}") for key in keys().values() for value in outside(key)],
)
def test_a_documented_range_is_enforced(key, value):
    values = [[value, *key.default[1:]], [*key.default[:-1], value]] if key.elements else [value]
    for wrong in values:
        with pytest.raises(UserError) as caught:
            configuration.load("big_cnn", {key.name: wrong})
        assert str(caught.value).startswith(f"{key.name}: {key.range}, not {value!r} ({key.summary})")


def test_every_key_and_group_is_documented():
    assert list(keys()) == list(configuration.flatten(configuration.to_dict(configuration.Config())))
    assert [key.name for key in keys().values() if len(key.doc) < 20 or not key.doc.endswith(".")] == []
    assert [
        group for group, cls in groups().items() if len(cls.__doc__) < 20 or cls.__doc__.startswith(f"{cls.__name__}(")
    ] == []


def test_the_documentation_names_every_model():
    assert [name for name in MODELS.names() if name not in keys()["model.name"].doc] == []


def test_the_generated_documents_are_fresh():
    assert reference.MARKDOWN.read_text() == reference.markdown(), f"{reference.MARKDOWN} {STALE}"
    assert reference.JSON_SCHEMA.read_text() == reference.json_schema(), f"{reference.JSON_SCHEMA} {STALE}"


def test_the_json_schema_takes_recipes_and_refuses_what_loading_refuses():
    schema = json.loads(reference.json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for recipe in configuration.recipe_names():
        check.validate(configuration.to_dict(configuration.load(recipe)))
    for key in keys().values():
        for value in [] if key.elements else outside(key):
            tree = {}
            configuration.set_key(tree, key.name, value)
            assert not check.is_valid(tree), (key.name, value)
    for tree in (
        {"trainn": {}},
        {"train": {"epoch": 1}},
        {"train": 3},
        {"augment": {"zoom": [0, 1]}},
        {"train": {"balance": "weights"}},
    ):
        assert not check.is_valid(tree), tree


def test_a_text_of_any_characters_survives_yaml(tmp_path):
    config = configuration.load("demo", {"name": "a\x85b\u2028c"})
    (tmp_path / "recipe.yaml").write_text(configuration.to_yaml(config), encoding="utf-8")
    assert configuration.load(str(tmp_path / "recipe.yaml")) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"train.epochs": 1, "train": {"epochs": 2}},
        {"train": {"epochs": 2}, "train.epochs": 1},
        {"data.near_duplicates": True, "data.near_copies": False},
    ],
)
def test_a_key_in_two_spellings_is_refused(settings):
    with pytest.raises(UserError, match="is given twice, in two spellings"):
        configuration.load("demo", settings)
    with pytest.raises(UserError, match="is given twice, in two spellings"):
        build_spec({"recipes": ["demo"], "set": settings})
    with pytest.raises(UserError, match="is given twice, in two spellings"):
        build_spec({"recipes": [{"recipe": "demo", "set": settings}]})


def test_the_command_line_overrides_a_key_of_the_comparison_file_in_any_spelling(tmp_path):
    (tmp_path / "comparison.yaml").write_text("recipes: [demo]\nset: {train: {epochs: 2}}\n")
    tree = comparison_tree(str(tmp_path / "comparison.yaml"), set={"train.epochs": 3})
    assert build_spec(tree).trials[0].config.train.epochs == 3


def test_keys_under_the_names_of_other_libraries_are_known():
    with pytest.raises(UserError, match=r"unknown key train\.learning_rate \(did you mean 'optim\.lr'\?\)"):
        configuration.load("demo", {"train.learning_rate": 1})


def test_a_recipe_of_another_encoding_is_explained(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"recipe\.yaml: is not UTF-8 text \(byte 0\); save it as UTF-8"):
        configuration.load(str(tmp_path / "recipe.yaml"))

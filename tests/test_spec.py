"""From flags or a comparison file to the list of trials."""

import pytest
from helpers import spec_of

from animalclf.errors import UserError


def test_recipes_and_seeds_from_flags():
    spec = spec_of(recipes="big_cnn, big_cnn_balanced", seeds="2", overrides={"train.epochs": 5, "data.val": 0.25})
    assert [(trial.name, trial.slug) for trial in spec.trials] == [
        ("big_cnn", "big_cnn-s0"),
        ("big_cnn", "big_cnn-s1"),
        ("big_cnn_balanced", "big_cnn_balanced-s0"),
        ("big_cnn_balanced", "big_cnn_balanced-s1"),
    ]
    assert {trial.config.train.epochs for trial in spec.trials} == {5} and spec.data_keys == ("data.val",)
    assert [trial.config.train.balance for trial in spec.trials] == ["none"] * 2 + ["class_weights"] * 2
    assert [trial.config.seed for trial in spec_of(recipes="demo", seeds="0,5").trials] == [0, 5]
    assert [trial.config.seed for trial in spec_of(recipes="demo", seeds="7,").trials] == [7]
    assert {trial.config.data.split_seed for trial in spec.trials} == {0}, "the seed does not change the split"


def test_the_grid_is_a_product_and_part_of_the_labels():
    spec = spec_of(recipes="demo", grid=["optim.lr=1e-3,3e-4", "train.batch_size=8,16"], seeds="2")
    assert len(spec.trials) == 8
    assert (
        spec.trials[2].name == "demo lr=0.001 batch_size=16" and spec.trials[2].slug == "demo-lr-0.001-batch_size-16-s0"
    )
    assert spec.trials[2].config.name == spec.trials[2].name
    assert {trial.config.optim.lr for trial in spec.trials} == {1e-3, 3e-4}


def test_the_comparison_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "recipes: [big_cnn, {recipe: vgg16, name: vgg_small, set: {train.epochs: 5}}]\n"
        "seeds: [3, 4]\nset: {train.epochs: 9}\nschedule: none\n"
    )
    spec = spec_of(str(file))
    assert [(trial.name, trial.config.seed, trial.config.train.epochs) for trial in spec.trials] == [
        ("big_cnn", 3, 9),
        ("big_cnn", 4, 9),
        ("vgg_small", 3, 5),
        ("vgg_small", 4, 5),
    ]
    with_flags = spec_of(str(file), seeds="1", overrides={"optim.lr": 0.5})
    assert [trial.config.seed for trial in with_flags.trials] == [0, 0] and with_flags.trials[0].config.optim.lr == 0.5


def test_a_random_search_is_seeded_and_stays_in_its_ranges():
    search = ["optim.lr=log:1e-5:1e-2", "train.batch_size=8:64", "optim.schedule=constant,cosine"]
    spec = spec_of(recipes="demo", search=search, samples=30)
    rates = [trial.config.optim.lr for trial in spec.trials]
    assert len(spec.trials) == 30 and all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert sum(rate < 10**-3.5 for rate in rates) > 8, "half of the draws are below the logarithmic middle"
    assert all(8 <= trial.config.train.batch_size <= 64 for trial in spec.trials)
    assert {trial.config.optim.schedule for trial in spec.trials} == {"constant", "cosine"}
    assert spec == spec_of(recipes="demo", search=search, samples=30)
    fewer = spec_of(recipes="demo", search=search, samples=10)
    assert spec.trials[:10] == fewer.trials, "a larger number of samples begins with the same ones"
    assert f"lr={rates[0]:.6g}" in spec.trials[0].name
    choices = spec_of(recipes="demo", search=["optim.schedule=constant,cosine"], samples=5)
    assert len(choices.trials) == 2, "no trial is repeated"


def test_optuna_varies_one_trial_within_its_ranges():
    spec = spec_of(
        recipes="demo", search=["optim.lr=log:1e-5:1e-2", "train.batch_size=8:64"], samples=5, searcher="optuna"
    )
    assert spec.searching and len(spec.trials) == 1
    trial = spec.trial({"optim.lr": 0.00123456, "train.batch_size": 15.7})
    assert (trial.config.optim.lr, trial.config.train.batch_size) == (0.00123, 16)
    assert trial.name == "demo lr=0.00123 batch_size=16"


def test_recipes_that_store_images_differently_are_comparable():
    spec = spec_of(recipes="quick,vgg16_pooled")
    assert [trial.config.data.resize for trial in spec.trials] == ["keep", "squash"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "no recipes"),
        ({"recipes": "big_cn"}, "did you mean 'big_cnn'"),
        ({"recipes": "demo,demo"}, "'demo' with seed 0 is repeated"),
        ({"recipes": "demo", "overrides": {"optim.lrr": 1}}, r"unknown key optim.lrr \(did you mean 'optim.lr'\?\)"),
        ({"recipes": "demo", "overrides": {"seed": 1}}, "seed: cannot be set in a comparison"),
        ({"recipes": "demo", "grid": ["optim.lr="]}, r"grid optim\.lr: has no values"),
        ({"recipes": "demo", "grid": ["optim.lr"]}, "write it as key=value"),
        ({"recipes": "demo", "grid": ["optim.lr=1e-3,1e-3"]}, "is repeated"),
        (
            {"recipes": "demo", "grid": ["optim.lr=1e-3,2e-3"], "overrides": {"optim.lr": 1}},
            "more than one of set, grid and search",
        ),
        ({"recipes": "demo", "search": ["optim.lr=log:1e-5:1e-2"]}, "samples: missing"),
        ({"recipes": "demo", "samples": 4}, "no search ranges to draw from"),
        ({"recipes": "demo", "search": ["optim.lr="], "samples": 4}, "nothing to choose from"),
        ({"recipes": "demo", "search": ["optim.lr=log:1e-2:1e-2"], "samples": 4}, "empty range"),
        ({"recipes": "demo", "search": ["optim.lr=log:0:1e-2"], "samples": 4}, "above 0"),
        ({"recipes": "demo", "search": ["optim.lrr=0:1"], "samples": 4}, "did you mean 'optim.lr'"),
        ({"recipes": "demo", "seeds": "-1"}, "seeds: "),
        ({"recipes": "demo", "seeds": "1,1"}, "repeats a seed"),
        ({"recipes": "demo", "seeds": "x"}, "seeds: 'x'"),
        ({"recipes": "demo", "overrides": {"train.monitor": "val_auc"}}, "train.monitor: 'val_auc' is not one of"),
        ({"recipes": "demo", "schedule": "ash"}, "did you mean 'asha'"),
        ({"recipes": "demo,vgg16", "schedule": "asha"}, "different models"),
        ({"recipes": "demo", "grid": ["data.val=0.1,0.2"]}, r"differ in data\.val: 0\.1 -> 0\.2"),
        ({"recipes": "demo", "grid": ["train.monitor=accuracy,loss"]}, "one metric"),
        ({"recipes": "demo", "grid": ["train.epochs=2,3"], "schedule": "asha"}, "different numbers of epochs"),
        ({"recipes": "demo", "searcher": "optuna"}, "no search ranges"),
        ({"recipes": "demo", "searcher": "optuna", "search": ["optim.lr=1:2"], "samples": 2, "seeds": "2"}, "one seed"),
    ],
)
def test_wrong_comparisons_are_refused_before_any_work(flags, message):
    with pytest.raises(UserError, match=message):
        spec_of(**flags)


def test_wrong_comparison_files_are_refused(tmp_path):
    file = tmp_path / "c.yaml"
    for text, message in [
        ("recipe: [demo]", "unknown key 'recipe' in the comparison .did you mean 'recipes'"),
        ("recipes: [{recipe: demo, sets: {}}]", "did you mean 'set'"),
        ("recipes: [{name: demo}]", "is neither the name of a recipe"),
        ("- demo", "is a mapping"),
        ("recipes: [demo", "not valid YAML"),
        ("recipes: [demo, {recipe: demo, name: other}]", "same trial under two names"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            spec_of(str(file))
    with pytest.raises(UserError, match="no such comparison file"):
        spec_of(str(tmp_path / "none.yaml"))

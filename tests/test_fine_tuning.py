"""Fine-tuning: learning rates by depth, LP-FT, L2-SP, WiSE-FT, gradual unfreezing, and their resume."""

import numpy as np
import pytest
import torch
from helpers import tiny_config, tiny_prepared
from test_training import metrics, train_into

from animalclf.config import Model, Optim
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.training import checkpoint, fine_tuning
from animalclf.training.optim import make_optimizer, set_learning_rate


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (24, 16, 8), size=40)


def config(epochs=1, **sets):
    plain = {"augment__flip": False, "augment__rotation": 0, "augment__shift": 0, "augment__zoom": [1, 1]}
    network = {"model__name": "squeezenet1_1", "model__input_size": 32, "data__stored_size": 40}
    trainable = {"model__trainable": ["features.11", "features.12", "head"], "model__dropout": 0.0, "optim__lr": 1e-3}
    return tiny_config(epochs, **plain | network | trainable | sets)


def weights_of(run, which="last"):
    return checkpoint.load(run.checkpoint(which))["model"]


@pytest.mark.parametrize(
    "name, last, first, count",
    [
        ("resnet18", "layer4.1.conv2.weight", "conv1.weight", 6),  # conv1, bn1, layer1 to layer4
        ("vit_b_32", "encoder.ln.weight", "class_token", 16),  # and conv_proj, the positions, 12 layers
        ("efficientnet_lite0", "last.norm.weight", "stem.conv.weight", 11),  # stem and last have two layers each
        ("vgg16_pooled", "block5_conv1.weight", "block1_conv2.bias", 5),
    ],
)
def test_blocks_are_counted_from_the_head_down(name, last, first, count):
    with torch.device("meta"):
        model = build(Model(name=name, input_size=32), 3)
    depth = fine_tuning.blocks(model)
    assert depth[f"base.{last}"] == 0 and depth[f"base.{first}"] == count - 1
    factors = fine_tuning.lr_factors(model, Optim(base_lr_factor=0.1, layer_decay=0.5))
    by_name = {name: factors[parameter] for name, parameter in model.named_parameters()}
    assert by_name["head.logits.weight"] == 1 and by_name[f"base.{last}"] == 0.1
    assert by_name[f"base.{first}"] == pytest.approx(0.1 * 0.5 ** (count - 1))


def test_groups_have_their_learning_rates():
    with torch.device("meta"):
        model = build(Model(name="vgg16_pooled", input_size=32, trainable=("block4", "block5", "head")), 3)
    spec = Optim(name="adamw", weight_decay=0.1, base_lr_factor=0.1, layer_decay=0.5)
    optimizer = make_optimizer(model.parameters(), spec, fine_tuning.lr_factors(model, spec))
    set_learning_rate(optimizer, 0.2)
    settings = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    expected = [(0.2, 0.1, 1), (0.2, 0, 1), (0.02, 0.1, 3), (0.02, 0, 3), (0.01, 0.1, 3), (0.01, 0, 3)]
    assert np.ravel(settings) == pytest.approx(np.ravel(expected))
    assert len(make_optimizer(model.parameters(), spec).param_groups) == 2


def test_l2_sp_pulls_the_base_back_and_leaves_the_head():
    model = build(Model(name="efficientnet_lite0", input_size=32, trainable=("last", "head")), 3)
    start = fine_tuning.initial_weights(model)
    for parameter in (*model.base.last.parameters(), *model.head.parameters()):
        parameter.data += 1
        parameter.grad = torch.zeros_like(parameter)
    model.base.last.norm.bias.grad = None
    fine_tuning.l2_sp(model, start, 0.25)()
    torch.testing.assert_close(model.base.last.conv.weight.grad, torch.full_like(model.base.last.conv.weight, 0.25))
    assert not model.head.logits.weight.grad.any() and model.base.last.norm.bias.grad is None


def test_l2_sp_keeps_a_training_near_its_start(tmp_path, prepared):
    distance = []
    for strength in (0.0, 40.0):
        run = train_into(
            tmp_path / str(strength),
            config(2, optim__l2_sp=strength),
            prepared,
        )
        torch.manual_seed(0)
        start = build(config().model, 3).state_dict()["base.features.12.squeeze.weight"]
        distance.append(float((weights_of(run)["base.features.12.squeeze.weight"] - start).norm()))
    assert distance[1] < 0.5 * distance[0]


def test_the_fitted_head_is_where_tuning_starts(tmp_path, prepared):
    frozen = {"model__trainable": ["head"], "train__heads": ["logistic"]}
    fitted = train_into(tmp_path / "fitted", config(**frozen), prepared)
    tuned = train_into(tmp_path / "tuned", config(optim__lr=1e-12, train__head_start="fitted"), prepared)
    logs = [
        np.log(table.filter(like="p_")).to_numpy() for table in (fitted.predictions("val"), tuned.predictions("val"))
    ]
    logits = [each - each.mean(1, keepdims=True) for each in logs]
    assert np.corrcoef(*(each.ravel() for each in logits))[0, 1] > 0.99
    best = tuned.metrics()[0].val["loss"]
    assert best < train_into(tmp_path / "random", config(optim__lr=1e-12), prepared).metrics()[0].val["loss"] / 2


def test_the_saved_model_is_between_the_initial_and_the_tuned_weights(tmp_path, prepared):
    run = train_into(tmp_path / "run", config(train__head_start="fitted", optim__wise_ft=0.25), prepared)
    start, tuned, saved = checkpoint.load(run.checkpoint("last"))["start"], weights_of(run), weights_of(run, "best")
    assert {"base.features.12.squeeze.weight", "head.logits.weight"} < set(start)
    for name, initial in start.items():
        assert not torch.equal(initial, tuned[name])
        torch.testing.assert_close(saved[name], 0.25 * initial + 0.75 * tuned[name])


@pytest.mark.parametrize(
    "epochs, trained",
    [
        (1, {"head.logits"}),
        (2, {"head.logits", "base.features.12"}),
        (3, {"head.logits", "base.features.12", "base.features.11"}),
    ],
)
def test_blocks_unfreeze_from_the_last_one_down(tmp_path, prepared, epochs, trained):
    torch.manual_seed(0)
    start = dict(build(config().model, 3).named_parameters())
    run = train_into(tmp_path / "run", config(epochs, train__unfreeze_every=1), prepared)
    changed_names = [name for name, weight in weights_of(run).items() if not torch.equal(weight, start[name])]
    assert {".".join(name.split(".")[: 3 if name.startswith("base") else 2]) for name in changed_names} == trained


def test_a_resumed_fine_tuning_equals_an_uninterrupted_one(tmp_path, prepared):
    tuning = {"train__head_start": "fitted", "optim__wise_ft": 0.5, "optim__l2_sp": 0.1, "optim__ema": 0.9}
    rates = {"optim__layer_decay": 0.5, "optim__base_lr_factor": 0.3, "train__unfreeze_every": 1, "augment__mixup": 0.2}
    settings = config(3, **tuning, **rates)
    uninterrupted = train_into(tmp_path / "uninterrupted", settings, prepared)
    train_into(tmp_path / "resumed", settings, prepared, stop_after=1)
    resumed = train_into(tmp_path / "resumed", settings, prepared)
    assert metrics(resumed) == metrics(uninterrupted)
    for which in ("last", "best"):
        expected, weights = (weights_of(run, which) for run in (uninterrupted, resumed))
        assert all(torch.equal(expected[name], weights[name]) for name in expected)


@pytest.mark.parametrize(
    "sets, message",
    [
        ({"optim__l2_sp": 0.1, "model__trainable": ["head"]}, r"optim\.l2_sp: no layer of the base trains"),
        ({"optim__wise_ft": 0.5}, r"optim\.wise_ft: needs an initial head .*set train\.head_start=fitted"),
        ({"train__head_start": "fitted", "model__name": "vgg16"}, r"the head of vgg16 is not one dense layer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, prepared, sets, message):
    if "model__name" in sets:
        sets = {**sets, "model__trainable": ["block5", "head"]}
    with pytest.raises(UserError, match=message):
        train_into(tmp_path / "run", config(**sets), prepared)
    assert not (tmp_path / "run" / "checkpoints").exists()

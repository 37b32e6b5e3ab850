"""A loss or a model is added in one file: registered at run time here, trained with, and found in the run folder."""

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from helpers import lite_config, tiny_config, tiny_prepared
from torch import nn

from animalclf.config.keys import keys
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.errors import UserError
from animalclf.lr_schedules import LR_SCHEDULES, LrSchedule
from animalclf.models import MODELS, embedded
from animalclf.models.classifier import Classifier
from animalclf.runs import Run
from animalclf.training import checkpoint, checks, launch, losses
from animalclf.training.distributed import RankContext
from animalclf.training.optim import OPTIMIZERS, learning_rate
from animalclf.training.resources import Workers
from animalclf.training.train import train


@pytest.fixture
def tiny_model() -> Iterator[str]:
    @MODELS.register("x_test_model")
    def tiny(spec, classes, load_weights):
        base = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 4, 3, stride=4), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()
            )
        )
        return Classifier(
            base,
            nn.Sequential(OrderedDict(logits=nn.Linear(4, classes))),
            (0, 0, 0),
            (1, 1, 1),
            spec.input_size,
            classes,
        )

    yield "x_test_model"
    MODELS.unregister("x_test_model")


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """The batch sizes that the loss "x_test_loss" gets."""
    sizes: list[int] = []

    @losses.LOSSES.register("x_test_loss")
    def poly(config):
        def loss(logits, target):
            sizes.append(len(target))
            return losses.cross_entropy(config)(logits, target) + 1 - logits.softmax(1).gather(1, target[:, None])[:, 0]

        return loss

    yield sizes
    losses.LOSSES.unregister("x_test_loss")


def test_a_registered_model_and_loss_train_and_are_recorded_in_the_run(tmp_path, tiny_model, calls):
    prepared = tiny_prepared(tmp_path / "prepared", (20, 16, 8), size=40)
    sizes = {"model__input_size": 32, "data__stored_size": 40}
    config = tiny_config(2, model__name=tiny_model, train__loss="x_test_loss", **sizes)
    run, images = Run(str(tmp_path / "run")), load_images(prepared)
    launch.record_run(config, prepared, run)
    result = train(config, prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext())
    assert sum(calls) == 2 * result.rows["train"] and result.epochs == 2
    stored = run.config()
    assert (stored.model.name, stored.train.loss) == ("x_test_model", "x_test_loss")
    model, info = checkpoint.load_model(run.root)
    assert info.config.train.loss == "x_test_loss" and model.classes == 3


def test_unknown_names_are_refused_before_any_work():
    with pytest.raises(
        UserError,
        match=r"train\.loss: 'focl' is unknown \(did you mean 'focal'\?\); there are cross_entropy, focal, cosine",
    ):
        checks.resolve_config(tiny_config(1, train__loss="focl"))
    with pytest.raises(UserError, match=r"model\.name: 'vgg_16' is unknown \(did you mean 'vgg16"):
        checks.resolve_config(tiny_config(1, model__name="vgg_16"))


def test_a_model_that_cannot_be_built_does_not_start_a_run(tmp_path):
    prepared, run = tiny_prepared(tmp_path / "set"), Run(str(tmp_path / "run"))
    for config, message in (
        (tiny_config(1, model__trainable="block9"), "no layer is called 'block9'"),
        (lite_config(1, model__weights=str(embedded.find("efficientnet_lite2"))), "does not fit this architecture"),
    ):
        with pytest.raises(UserError, match=message):
            launch.start_training(config, prepared, run, Workers(0, 0), True, True, lambda event: None)
        assert not run.exists()


def test_the_key_of_optimizers_lists_the_registered_names():
    assert sorted(keys()["optim.name"].choices) == sorted(OPTIMIZERS.names())


def test_the_cosine_loss_is_of_the_direction_of_the_logits():
    config, logits, target = tiny_config(1), torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 2.0]]), torch.tensor([0, 1])
    plain, cosine = (losses.LOSSES.get(name)(config)(logits, target) for name in ("cross_entropy", "cosine"))
    assert torch.allclose(cosine, torch.tensor([0.0, 1 - 0.5**0.5]) + 0.1 * plain)


def test_focal_loss_weighs_hard_images_more():
    logits, target = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0, 0])
    config = tiny_config(1)
    plain, focal = (
        losses.LOSSES.get("cross_entropy")(config)(logits, target),
        losses.LOSSES.get("focal")(config)(logits, target),
    )
    probability = torch.exp(-plain)
    assert (
        torch.allclose(focal, (1 - probability) ** 2 * plain) and focal[0] / plain[0] < 0.01 < 0.8 < focal[2] / plain[2]
    )
    weights = torch.tensor([2.0, 1.0])
    assert losses.weighted_sum(plain, target, weights) == pytest.approx(2 * float(plain.sum()))
    assert losses.log_loss_sum(logits, target) == pytest.approx(float(plain.sum()))


def test_a_schedule_decides_whether_a_run_can_be_extended_to_more_epochs(tmp_path):
    assert not LR_SCHEDULES.get("constant").depends_on_epochs and LR_SCHEDULES.get("cosine").depends_on_epochs
    run = Run(str(tmp_path))
    for schedule in ("constant", "cosine"):
        run.write_config(tiny_config(2, optim__schedule=schedule))
        longer = tiny_config(5, optim__schedule=schedule)
        if schedule == "constant":
            assert checks.can_extend(run, longer)
        else:
            with pytest.raises(
                UserError, match=r"with optim\.schedule=cosine the learning rate of every epoch depends on it"
            ):
                checks.can_extend(run, longer)


def test_a_registered_schedule_is_configured_documented_and_sets_the_rate():
    halving = LrSchedule(lambda progress: 0.5 ** int(4 * progress), True, "halves after every quarter")
    LR_SCHEDULES.register("x_test_schedule")(halving)
    try:
        spec = tiny_config(1, optim__lr=1.0, optim__schedule="x_test_schedule").optim
        rates = [learning_rate(spec, step, 2, 4) for step in range(8)]
        assert (
            "x_test_schedule: halves after every quarter; train.epochs cannot be changed"
            in keys()["optim.schedule"].doc
        )
    finally:
        LR_SCHEDULES.unregister("x_test_schedule")
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]

"""Heads fitted on frozen features: each against its definition, the inner folds, and a whole run with its model."""

import numpy as np
import pytest
import torch
from helpers import tiny_config, tiny_prepared
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import animalclf
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.errors import UserError
from animalclf.features import fitting
from animalclf.features.folds import deal_folds
from animalclf.features.heads import HEADS, FittedHead, TrainingSet
from animalclf.features.lbfgs import minimum
from animalclf.models.classifier import count_parameters
from animalclf.models.fitted_heads import module_from, module_of
from animalclf.report.leaderboard import leaderboard
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training import train as training
from animalclf.training.distributed import RankContext


def clusters(images: int, width: int, classes: int = 3, seed: int = 0, spread: float = 1.0) -> TrainingSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(7).normal(size=(classes, width))
    features = centres[labels] + spread * generator.normal(size=(images, width)) + 5
    weights = generator.uniform(0.5, 1.5, images)
    return TrainingSet(features, labels, weights / weights.mean(), classes)


def logits_of(kind: str, training: TrainingSet, settings: dict, features: np.ndarray) -> np.ndarray:
    """Of the PyTorch module."""
    head = FittedHead(kind, settings, 1.0, HEADS.get(kind).fit(training, settings), np.empty(0), 0.0)
    module = module_of([head], np.arange(training.classes), training.classes)[kind]
    return module(torch.tensor(features, dtype=torch.float32)).numpy()


@pytest.mark.parametrize("images, width", [(30, 50), (60, 8)])
@pytest.mark.parametrize("kind", ["logistic", "lda", "kernel_ridge"])
def test_the_module_gives_the_logits_of_the_candidates(kind, images, width):
    """More features than images, and fewer."""
    training, others = clusters(images, width), clusters(9, width, seed=1).features
    candidates = HEADS.get(kind).candidates
    all_logits = HEADS.get(kind).logits(training, others)
    for settings, logits in list(zip(candidates, all_logits, strict=True))[::3]:
        difference = logits_of(kind, training, settings, others) - logits
        tolerance = 0.05 if kind == "logistic" else 2e-3  # how far L-BFGS goes from another start
        assert np.abs(difference - difference.mean(1, keepdims=True)).max() < tolerance


def test_lda_is_the_gaussian_rule():
    training, others = clusters(60, 5), clusters(9, 5, seed=1).features
    weights, one_hot = training.weights, training.one_hot
    means = (one_hot * weights[:, None]).T @ training.features / (one_hot.T @ weights)[:, None]
    within = training.features - means[training.labels]
    covariance = (within * weights[:, None]).T @ within / weights.sum()
    shrunk = 0.5 * covariance + 0.5 * np.trace(covariance) / 5 * np.eye(5)
    gaps = others[:, None] - means
    expected = -0.5 * np.einsum("ncf,fg,ncg->nc", gaps, np.linalg.inv(shrunk), gaps) + np.log(training.priors)
    np.testing.assert_allclose(
        softmax(logits_of("lda", training, {"shrinkage": 0.5}, others), axis=1), softmax(expected, axis=1), atol=1e-5
    )


def test_logistic_regression_is_at_its_minimum():
    training = clusters(60, 5, spread=3.0)
    tensors = HEADS.get("logistic").fit(training, {"C": 3.0})
    probabilities = softmax(training.features @ tensors["weight"].T + tensors["bias"], axis=1)
    slope = (probabilities - training.one_hot) * training.weights[:, None]
    inputs = (training.features - training.mean) / training.scale
    gradient = inputs.T @ slope + tensors["weight"].T * training.scale / 3.0
    assert np.abs(gradient).max() < 0.02 and np.abs(slope.sum(0)).max() < 0.02


def test_logistic_regression_is_at_its_minimum_for_every_candidate():
    """Also where the regularisation is weak: the gradient is small there far from the minimum."""
    training, others = clusters(60, 40, spread=3.0), clusters(30, 40, seed=1, spread=3.0).features
    inputs, rest = training.scaled(training.features), training.scaled(others)
    kind = HEADS.get("logistic")
    for settings, logits in zip(kind.candidates, kind.logits(training, others), strict=True):

        def objective(flat, strength=settings["C"]):
            layer = flat.reshape(41, 3)
            log_probabilities = log_softmax(inputs @ layer[:-1] + layer[-1], axis=1)
            slope = (np.exp(log_probabilities) - training.one_hot) * training.weights[:, None]
            value = -(training.weights @ log_probabilities[np.arange(60), training.labels])
            gradient = np.vstack([inputs.T @ slope + layer[:-1] / strength, slope.sum(0)])
            return value + 0.5 * (layer[:-1] ** 2).sum() / strength, gradient.ravel()

        options = {"maxiter": 5000, "gtol": 1e-8, "ftol": 0}
        exact = minimize(objective, np.zeros(41 * 3), jac=True, method="L-BFGS-B", options=options).x.reshape(41, 3)
        expected = rest @ exact[:-1] + exact[-1]
        expected -= expected.mean(1, keepdims=True)
        difference = logits - logits.mean(1, keepdims=True) - expected
        assert np.sqrt((difference**2).mean()) < 0.03 * np.sqrt((expected**2).mean()), settings


def test_the_search_ends_at_the_minimum_of_an_ill_scaled_function():
    scales = np.array([1.0, 10.0, 300.0])

    def objective(point):
        exponentials = np.exp(scales * point)
        return float((exponentials - scales * point).sum() + point @ point), scales * (exponentials - 1) + 2 * point

    point = minimum(objective, np.array([1.0, -0.5, 0.005]), 1e-6, 200)
    assert np.abs(objective(point)[1]).max() < 1e-6 and np.abs(point).max() < 1e-5


@pytest.mark.parametrize("images, width", [(30, 50), (60, 8)])
@pytest.mark.parametrize("kind", ["logistic", "lda", "kernel_ridge"])
def test_a_head_does_not_depend_on_the_axes_of_the_features(kind, images, width):
    training = clusters(images, width)
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(width, width)))[0]
    folds = deal_folds(training.labels, np.arange(images), 4, 0)
    one, other = (
        fitting.fit_head(kind, TrainingSet(features, training.labels, training.weights, 3), folds)
        for features in (training.features, training.features @ turned - 2)
    )
    assert one.settings == other.settings
    np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "lda", "kernel_ridge"])
def test_features_that_are_all_the_same_give_the_class_frequencies(kind):
    labels = np.repeat([0, 1], [20, 10])
    for width in (4, 50):
        same = TrainingSet(np.ones((30, width)), labels, np.ones(30), 2)
        head = fitting.fit_head(kind, same, deal_folds(labels, np.arange(30), 4, 0))
        assert np.isfinite(head.log_probabilities).all() and (head.log_probabilities.argmax(1) == 0).all()


def test_kernel_ridge_solves_its_equations():
    training = clusters(20, 5)
    tensors = HEADS.get("kernel_ridge").fit(training, {"width": 1.0, "ridge": 0.1})
    gaps = ((training.features[:, None] - training.features) ** 2).sum(2)
    median = np.median(gaps[~np.eye(20, dtype=bool)])
    kernel, coefficients = np.exp(-gaps / median), tensors["weight"].T / 10
    targets = training.one_hot - training.priors
    np.testing.assert_allclose(
        kernel @ coefficients + 0.1 * coefficients / training.weights[:, None], targets, atol=1e-5
    )


def test_weights_count_as_repetitions():
    once = clusters(30, 6)
    counts = np.random.default_rng(3).integers(1, 4, 30)
    weighted = TrainingSet(once.features, once.labels, counts / counts.mean(), 3)
    rows = np.repeat(np.arange(30), counts)
    repeated = TrainingSet(once.features[rows], once.labels[rows], np.ones(len(rows)), 3)
    for left, right in zip(
        HEADS.get("lda").fit(weighted, {"shrinkage": 0.2}).values(),
        HEADS.get("lda").fit(repeated, {"shrinkage": 0.2}).values(),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, rtol=0.2, atol=0.2)  # the scale is a mean over images


def test_folds_hold_duplicates_together_and_balance_the_classes():
    labels = np.repeat([0, 1, 2], [20, 12, 3])
    groups = np.arange(35)
    groups[:4] = 0
    groups[20:22] = 20
    fold = deal_folds(labels, groups, 4, seed=0)
    assert len(set(fold[:4])) == len(set(fold[20:22])) == 1
    for label in (0, 1):
        counts = np.bincount(fold[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert len(set(fold[32:])) == 3
    assert np.array_equal(fold, deal_folds(labels, groups, 4, seed=0))
    assert not np.array_equal(fold, deal_folds(labels, groups, 4, seed=1))


def test_temperature_is_that_of_the_labels():
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4000, 3))
    probabilities = softmax(logits, axis=1)
    labels = (generator.random(4000)[:, None] > probabilities.cumsum(1)).sum(1)
    assert fitting.fit_temperature(3 * logits, labels, np.ones(4000)) == pytest.approx(3, rel=0.1)


def test_temperature_stays_finite_where_everything_is_right():
    labels = np.arange(30) % 3
    logits = 5 * np.eye(3)[labels]
    assert 0.2 < fitting.fit_temperature(logits, labels, np.ones(30)) < 1
    assert fitting.fit_temperature(logits[:0], labels[:0], np.ones(0)) == 1


def test_a_class_of_one_image_is_no_obstacle():
    training = clusters(31, 6)
    labels = training.labels.copy()
    labels[0] = 3
    rare = TrainingSet(training.features, labels, np.ones(31), 4)
    head = fitting.fit_head("lda", rare, deal_folds(labels, np.arange(31), 4, 0))
    assert np.isfinite(head.log_loss) and head.tensors["weight"].shape == (4, 6)


def config(heads=("logistic", "lda", "kernel_ridge"), **sets):
    network = {"model__name": "efficientnet_lite0", "model__input_size": 32, "data__stored_size": 40}
    frozen = {"model__trainable": ["head"], "augment__flip": False, "augment__rotation": 0, "augment__shift": 0}
    sets = network | frozen | {"augment__zoom": [1, 1], "train__heads": list(heads)} | sets
    return tiny_config(1, **sets)


def train_into(folder, config, prepared):
    run, images = Run(str(folder)), load_images(prepared)
    training.train(config, prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext())
    return run


def test_a_run_with_fitted_heads(tmp_path):
    prepared = tiny_prepared(tmp_path / "prepared", (30, 20, 12), size=40)
    run = train_into(tmp_path / "run", config(), prepared)
    run.write_config(config())
    result, (row,) = run.result(), run.metrics()
    assert [head.kind for head in result.heads] == ["logistic", "lda", "kernel_ridge"] and result.heads == row.heads
    assert row.train_rows == result.rows["train"] and row.lr == 0 and result.best_epoch == 1
    assert result.metrics["accuracy"] > 0.8 and row.train_accuracy > 0.8
    model, _ = checkpoint.load_model(run.root)
    images = load_images(prepared)
    rows = prepared.rows("val")
    probabilities = model(torch.from_numpy(np.stack(images.views(rows)))[:, :32, :32]).exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(rows)))
    stored = run.predictions("val")
    assert list(animalclf.load(run.root).predict(np.stack(images.views(rows)))) == list(stored["predicted"])
    board = leaderboard([run]).rows[0]
    assert board.trainable == sum(tensor.numel() for tensor in model.head.buffers())
    assert board.parameters == count_parameters(model.base) + board.trainable
    state = checkpoint.load(run.checkpoint("best"))["model"]
    assert module_from(state).state_dict().keys() == model.head.state_dict().keys()
    again = train_into(run.root, config(), prepared)  # a resume has nothing left to do
    assert again.metrics() == [row] and again.predictions("val").equals(stored)


def test_validation_images_choose_nothing(tmp_path):
    prepared = tiny_prepared(tmp_path / "prepared", (30, 20, 12), size=40)
    heads = train_into(tmp_path / "one", config(), prepared).result().heads
    val = prepared.manifest["split"] == "val"
    prepared.manifest.loc[val, "label"] = "class0"
    assert train_into(tmp_path / "other", config(), prepared).result().heads == heads


@pytest.mark.parametrize(
    "sets, message",
    [
        ({"heads": ("ridge",)}, "train.heads: 'ridge' is unknown.*logistic"),
        ({"model__trainable": ["all"]}, "needs features that do not change; set model.trainable=head"),
        ({"augment__flip": True}, "no augmentation"),
        ({"train__epochs": 2}, "set train.epochs=1, not 2"),
        ({"optim__ema": 0.9}, "set optim.ema=0, not 0.9"),
    ],
)
def test_settings_that_do_not_fit_heads_are_refused(tmp_path, sets, message):
    prepared = tiny_prepared(tmp_path / "prepared", (8, 8), size=40)
    with pytest.raises(UserError, match=message):
        train_into(tmp_path / "run", config(**sets), prepared)


def test_heads_too_large_for_the_images_are_left_out(tmp_path, monkeypatch):
    prepared = tiny_prepared(tmp_path / "prepared", (8, 8), size=40)
    monkeypatch.setattr(type(HEADS.get("kernel_ridge")), "fits", lambda self, images, classes: False)
    result = train_into(tmp_path / "run", config(("lda", "kernel_ridge")), prepared).result()
    assert [head.kind for head in result.heads] == ["lda"]
    with pytest.raises(UserError, match="too many for it; add lda"):
        train_into(tmp_path / "other", config(("kernel_ridge",)), prepared)

"""The score of "none of these", and what a training stores of it."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

import animalclf
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.run_images import prepared_set_of
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.export.card import model_card
from animalclf.features.known import entropy, fit_distances, fit_scorer
from animalclf.features.known_file import from_bytes, to_bytes
from animalclf.inference.extra_columns import add_known
from animalclf.inference.features import image_features
from animalclf.inference.known import known_scorer, scorer_or_reason
from animalclf.report import plots
from animalclf.report.page import write_report
from animalclf.report.section import SECTIONS
from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.feature_cache import FeatureCache, Features
from animalclf.training.final_eval import finish


def auroc(known, unknown):
    ranks = rankdata(np.concatenate([known, unknown]))[: len(known)]
    return (ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown))


def clusters(generator, classes, images, width=40):
    """Features around the unit vectors `classes` of a space, with most variance in a few directions."""
    labels = np.repeat(np.arange(len(classes)), images)
    noise = generator.normal(size=(len(labels), width)) * 0.15
    noise[:, 20:23] *= 6
    return (4 * np.eye(width)[classes][labels] + noise + 3).astype(np.float32), labels


def probabilities_of(generator, images, sharp):
    return generator.dirichlet([sharp, 0.05, 0.05], images)


def test_the_score_separates_unseen_clusters_and_keeps_95_percent_of_the_validation_images():
    generator = np.random.default_rng(0)
    features, labels = clusters(generator, [0, 1, 2], 60)
    distances = fit_distances(features, labels)
    val, _ = clusters(generator, [0, 1, 2], 67)
    known = probabilities_of(generator, len(val), 5)
    scorer = fit_scorer(distances, distances(val), known)
    assert (scorer.score(val, known) >= 0).mean() == pytest.approx(0.95, abs=1 / len(val))
    np.testing.assert_allclose(np.sort(scorer.validation), np.sort(scorer.score(val, known)), atol=1e-3)
    others, _ = clusters(generator, [5, 6, 7], 60)
    sure = probabilities_of(generator, len(others), 5)  # as sure as of known images: only the distance tells them apart
    assert auroc(scorer.score(val, known), scorer.score(others, sure)) > 0.99
    unsure = np.full((len(val), 3), 1 / 3)  # as near as known images: only the entropy tells them apart
    assert auroc(scorer.score(val, known), scorer.score(val, unsure)) > 0.95


def test_the_distance_is_relative_to_that_to_all_images():
    """With one class, both distances are the same."""
    generator = np.random.default_rng(3)
    features, _ = clusters(generator, [0, 1], 20)
    distances = fit_distances(features, np.zeros(len(features), np.int64))
    others, _ = clusters(generator, [2, 3], 5)
    np.testing.assert_allclose(distances(others), 0, atol=1e-4)


def test_fewer_images_than_features_have_the_same_covariance():
    """The eigenvectors come from the smaller of two products."""
    generator = np.random.default_rng(1)
    features, labels = clusters(generator, [0, 1], 15)
    others, _ = clusters(generator, [0, 3], 20)
    few = fit_distances(features, labels)(others)  # 30 images of 40 features
    many = fit_distances(np.concatenate([features] * 2), np.concatenate([labels] * 2))(others)  # each of them twice
    np.testing.assert_allclose(few, many, rtol=1e-3)


@pytest.mark.parametrize("images", [1, 2, 19, 20, 100])
def test_the_threshold_never_drops_more_than_5_percent(images):
    generator = np.random.default_rng(images)
    features, labels = clusters(generator, [0, 1, 2], 20)
    distances = fit_distances(features, labels)
    values, probabilities = generator.normal(size=images), probabilities_of(generator, images, 2)
    scores = fit_scorer(distances, values, probabilities).validation
    assert (scores < 0).sum() == int(images * 0.05 + 1e-9) and np.isfinite(scores).all()


def test_degenerate_features_give_finite_scores():
    features, labels = np.zeros((6, 4), np.float32), np.array([0, 0, 0, 1, 1, 1])
    distances = fit_distances(features, labels)
    scorer = fit_scorer(distances, distances(features), np.full((6, 2), 0.5))
    assert np.isfinite(scorer.score(np.ones((2, 4), np.float32), np.full((2, 2), 0.5))).all()
    assert entropy(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx([0, np.log(2)])


def test_the_file_has_arrays_only_and_gives_the_same_scores():
    generator = np.random.default_rng(2)
    features, labels = clusters(generator, [0, 1, 2], 20)
    probabilities = probabilities_of(generator, 60, 3)
    scorer = fit_scorer(fit_distances(features, labels), generator.normal(size=60), probabilities)
    content = to_bytes(scorer)
    assert np.array_equal(from_bytes(content).score(features, probabilities), scorer.score(features, probabilities))
    for damaged in (content[:200], b"", b"text"):
        with pytest.raises(ValueError, match=r"."):
            from_bytes(damaged)


def test_unreadable_images_are_neither_known_nor_unknown():
    import pandas as pd

    table = add_known(pd.DataFrame({"id": ["a", "b", "c"]}), np.float32([0.0, -0.1, 3]), np.array([True, True, False]))
    assert table["known"].tolist() == ["yes", "no", ""] and np.isnan(table["known_score"][2])


# ---------------------------------------------------------------------------- a training


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run, tiny_set):
    """A run folder with the end of a training: an untrained network, evaluated."""
    run, images = (
        Run(str(shutil.copytree(untrained_run, tmp_path_factory.mktemp("known") / "run"))),
        load_images(tiny_set),
    )
    context = TrainContext(
        run.config(),
        tiny_set,
        sampling_plan(tiny_set, run.config()),
        run,
        RankContext(),
        lambda plan, passes: MemoryLoader(plan, images),
        lambda event: None,
    )
    history = [EpochRow(1, seconds=1.0, train_seconds=1.0, images_per_s=1.0, wait_fraction=0.0)]
    run.write_metrics(history)
    finish(context, history, 1.0, None)
    return run


def test_a_training_stores_the_score_of_its_validation_images(run):
    model, info = checkpoint.load_model(run.root)
    scorer = known_scorer(run, model, info)
    val = image_features(run.root, split="val")
    assert len(scorer.validation) == len(val.paths) == 6
    # The file has the probabilities at the temperatures of other folds; those of the model change the entropy a little.
    again = fit_scorer(scorer.distances, scorer.distances(val.features), val.probabilities)
    assert np.corrcoef(scorer.validation, again.validation)[0, 1] > 0.99
    prepared = prepared_set_of(run)
    images = load_images(prepared).views(prepared.rows("val"))
    table = animalclf.load(run.root).table(images, top_k=2, sets=0.5)
    np.testing.assert_allclose(table["known_score"], scorer.score(val.features, val.probabilities), atol=1e-2)
    assert (table["known"] == np.where(table["known_score"] >= 0, "yes", "no")).all()
    assert (table["probability_2"] <= table["probability"]).all()
    assert (table["predicted_2"] != table["predicted"]).all()
    assert animalclf.load(run.root).table([]).empty


def test_an_older_run_gets_its_score_from_the_prepared_set(run, tmp_path, capsys):
    old = Run(str(shutil.copytree(run.root, tmp_path / "old")))
    model, info = checkpoint.load_model(old.root)
    expected = known_scorer(old, model, info)
    (tmp_path / "old" / "known.npz").unlink()
    computed = known_scorer(old, model, info)
    assert "no known.npz" in capsys.readouterr().err
    np.testing.assert_allclose(computed.distances.classes.centres, expected.distances.classes.centres, atol=1e-4)
    assert (tmp_path / "old" / "known.npz").exists()
    (tmp_path / "old" / "known.npz").write_bytes(b"damaged")
    with pytest.raises(
        UserError, match=r"known\.npz: not readable .* remove the file, and it is computed again, .* folds, train again"
    ):
        known_scorer(old, model, info)
    (tmp_path / "old" / "known.npz").unlink()
    (tmp_path / "old" / "environment.json").write_text('{"prepared": "/nowhere", "data_fingerprint": "x"}')
    assert scorer_or_reason(old, model, info)[0] is None and "/nowhere" in scorer_or_reason(old, model, info)[1]


def test_a_run_that_cannot_have_the_score_says_why(run, untrained_run, tmp_path):
    unfinished = Run(untrained_run)
    assert "has not finished" in scorer_or_reason(unfinished, *checkpoint.load_model(untrained_run))[1]
    without = Run(str(shutil.copytree(run.root, tmp_path / "without")))
    (tmp_path / "without" / "known.npz").unlink()
    without.write_result({**without.read_result(), "val": None})
    model, info = checkpoint.load_model(without.root)
    assert "no validation images" in scorer_or_reason(without, model, info)[1]
    assert "known" not in animalclf.load(without.root).table(np.zeros((40, 40, 3), np.uint8))


# ----------------------------------------------------------------------------------------------- damaged side files


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, flipped, empty])
@pytest.mark.parametrize("name, without", [("known.npz", "None of these"), ("predictions/val.parquet", "Top losses")])
def test_a_report_leaves_out_what_needs_a_damaged_file(run, tmp_path, capsys, name, without, damage, monkeypatch):
    shown = {name: SECTIONS.get(name) for name in ("known_scores", "top_losses")}
    monkeypatch.setattr(SECTIONS, "_entries", shown)
    copy = shutil.copytree(run.root, tmp_path / "run")
    file = copy / name
    file.write_bytes(damage(file.read_bytes()))
    write_report([Run(str(copy))], str(tmp_path / "out"), title="x")
    page = (tmp_path / "out" / "report.html").read_text()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"report without {without}: {file}: ") and f"<h2>{without}" not in page
    assert sum(f">{title}<" in page for title in ("None of these", "Top losses")) == 1


@pytest.mark.parametrize("damage", [cut, flipped, empty])
def test_a_model_card_and_answers_do_without_a_damaged_score(run, tmp_path, capsys, damage):
    copy = shutil.copytree(run.root, tmp_path / "run")
    file = copy / "known.npz"
    file.write_bytes(damage(file.read_bytes()))
    model, info = checkpoint.load_model(str(copy))
    assert "mark these as unknown" not in model_card(Run(str(copy)), info, {}, [])
    assert capsys.readouterr().err.startswith(f"without the score of none of these: {file}: not readable (")
    scorer, why = scorer_or_reason(Run(str(copy)), model, info)
    assert scorer is None and str(file) in why and "\n" not in why


def test_no_damage_to_a_file_of_arrays_is_unnamed(run, tmp_path):
    content = (Path(run.root) / "known.npz").read_bytes()
    rng = np.random.default_rng(0)
    cache = FeatureCache(str(tmp_path), "x")
    cache.write(Features(np.arange(3), np.ones((3, 4), np.float32)))
    features = Path(cache.url).read_bytes()
    for _ in range(150):
        for original, read in ((content, from_bytes), (features, lambda _: cache.read())):
            damaged = bytearray(original[: rng.integers(len(original))] if rng.random() < 0.2 else original)
            for place in rng.integers(max(len(damaged), 1), size=2):
                damaged[place : place + 1] = rng.bytes(1)
            Path(cache.url).write_bytes(damaged)
            with contextlib.suppress(ValueError):
                read(bytes(damaged))


@pytest.mark.parametrize("scores", [[-0.65, -0.1, 0.0, 0.3, 1, 2, 3], [0.0] * 5, [2.0] * 4, [-2.0] * 4])
def test_no_bar_of_the_scores_is_on_both_sides_of_the_threshold(scores):
    bars = [(bar.get_x(), bar.get_height()) for bar in plots.known_scores(np.array(scores)).axes[0].patches]
    assert sum(height for _, height in bars) == len(scores)
    assert sum(height for left, height in bars if left < -1e-9) == (np.array(scores) < 0).sum()

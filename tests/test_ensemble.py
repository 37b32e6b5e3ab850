import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny_config, tiny_prepared
from PIL import Image
from run_folders import CLASSES, finished_run, guesses

import animalclf
from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds
from animalclf.features.temperature import apply_temperature, cross_calibrate, fit_temperature, logits_of
from animalclf.inference import mixing
from animalclf.inference import prior_shift as priors
from animalclf.inference.ensemble import ensemble
from animalclf.inference.evaluate import evaluate
from animalclf.inference.vote import vote_submissions
from animalclf.metrics import from_probabilities
from animalclf.models import build
from animalclf.report.leaderboard import leaderboard
from animalclf.rows import CrossFitting
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage

LABELS = np.repeat([0, 1, 2], [300, 200, 100])
CONFIG = tiny_config(model__input_size=76, data__stored_size=80)


def onehot(votes, confidence=0.8, classes=3):
    votes = np.asarray(votes)
    return np.where(votes[:, None] == np.arange(classes), confidence, (1 - confidence) / (classes - 1))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def calibrated(labels, generator, classes=3, spread=2.0):
    """Calibrated probabilities (N, C) for equally frequent classes, from Gaussian evidence."""
    evidence = generator.normal(0, 1, (len(labels), classes)) * np.sqrt(spread) + np.eye(classes)[labels] * spread
    return softmax(evidence)


# ---------------------------------------------------------------------------- mixing


def test_a_vote_with_ties_by_hand():
    votes = [[0, 0, 0, 0, 2], [1, 1, 1, 0, 1], [1, 2, 2, 1, 1], [2, 2, 1, 2, 0], [2, 0, 2, 1, 0]]
    #  1, 1 against 2, 2: the second is the best to vote for either; 0, 0 against 2, 2: the first; ...
    assert mixing.majority_vote(votes).tolist() == [1, 0, 1, 0, 1]
    assert mixing.majority_vote([[3, 1], [2, 1]]).tolist() == [3, 1]


def test_a_vote_as_probabilities_names_its_winner():
    votes = np.array([[0, 1, 2, 0], [1, 1, 0, 2], [2, 1, 0, 2], [2, 0, 1, 0]])
    probabilities = np.stack([onehot(vote) for vote in votes])
    ranking = np.array([3, 1, 0, 2])
    mixture = mixing.Mixture("vote", np.ones(4), np.full(4, 0.25), ranking)
    mixed = mixture.combine(probabilities)
    assert mixed.argmax(1).tolist() == mixing.majority_vote(votes[ranking]).tolist() == [2, 1, 0, 0]
    assert mixed.sum(1) == pytest.approx(1) and mixed[1] == pytest.approx(
        np.array([4 / 3, 10 / 3 + 0.001, 1 / 3]) / 5.001, abs=1e-12
    )
    assert (mixed.astype(np.float32).argmax(1) == mixed.argmax(1)).all()


def test_a_repeated_run_is_refused_before_the_images_are_predicted(members, tmp_path):
    copy = shutil.copytree(members[0].root, tmp_path / "copy")
    with pytest.raises(UserError, match="the same configuration and seed as"):
        animalclf.ensemble([members[0].root, copy], out=tmp_path / "out", method="mean")
    assert not (tmp_path / "out" / "mean").exists()


def test_the_ranking_is_by_balanced_accuracy():
    labels = np.array([0] * 8 + [1, 2])
    blind = onehot(np.zeros(10, int))  # accuracy 0.8, balanced accuracy 1/3
    fair = onehot([0, 0, 0, 0, 0, 1, 1, 2, 1, 2])  # accuracy 0.7, balanced accuracy 0.875
    assert mixing.fit("vote", np.stack([blind, fair]), labels).ranking.tolist() == [1, 0]
    assert mixing.fit("vote", np.stack([fair, fair]), labels).ranking.tolist() == [0, 1]


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_recovered(true):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 6000)
    honest = calibrated(labels, generator)
    sharpened = apply_temperature(honest, 1 / true)  # logits times `true`
    temperature = fit_temperature(logits_of(sharpened), labels)
    assert temperature == pytest.approx(true, rel=0.08)
    repaired = from_probabilities(apply_temperature(sharpened, temperature), labels, CLASSES)
    assert repaired["ece"] < 0.025 and (true == 1.0 or from_probabilities(sharpened, labels, CLASSES)["ece"] > 0.06)


def test_a_member_that_is_always_right_or_always_wrong_has_a_bounded_temperature():
    labels = np.array([0, 1, 2, 0])
    assert 0.3 < fit_temperature(logits_of(onehot(labels)), labels) < 1
    assert 1 < fit_temperature(logits_of(onehot((labels + 1) % 3, confidence=1.0)), labels) <= 20


def test_weights_go_to_the_better_member_and_fit_best():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 3000)
    better, worse, noise = (
        calibrated(labels, generator, spread=4),
        calibrated(labels, generator, spread=1),
        np.full((3000, 3), 1 / 3),
    )
    mixture = mixing.fit("weighted", np.stack([worse, better, noise]), labels)
    assert mixture.weights.sum() == pytest.approx(1) and (mixture.weights >= 0).all()
    assert mixture.weights[1] > 0.7 and mixture.weights[1] > 4 * mixture.weights[0] > 0 and mixture.weights[2] < 0.01
    assert (mixture.weights >= 0.01 / 3 / 1.01).all()
    true = mixture.calibrate(np.stack([worse, better, noise]))[:, np.arange(3000), labels]
    best = -np.log(mixture.weights @ true).mean()
    for step in generator.dirichlet(np.ones(3), 50):
        assert best <= -np.log((0.9 * mixture.weights + 0.1 * step) @ true).mean() + 1e-4


def test_folds_are_stratified_and_do_not_divide_groups():
    generator = np.random.default_rng(0)
    groups = np.arange(600)
    groups[:40:2] = groups[1:41:2]
    order = generator.permutation(600)
    labels, groups = LABELS[order], groups[order]
    fold = deal_folds(labels, groups, mixing.FOLDS, seed=0)
    assert all(len(set(fold[groups == group])) == 1 for group in groups)
    for label, count in enumerate((300, 200, 100)):
        assert np.bincount(fold[labels == label], minlength=5) == pytest.approx(count / 5, abs=6)
    assert deal_folds(np.array([0, 1, 2]), np.array([7, 8, 9]), 5, seed=0).tolist() != [0, 0, 0]


def test_cross_fitted_metrics_of_noise_are_not_optimistic():
    """Random members: the loss on the images of the fit is below that of chance, the cross-fitted loss is not."""
    generator, optimistic, cross_fitted = np.random.default_rng(0), [], []
    chance = np.log(3)
    for _ in range(8):
        labels = generator.permutation(np.repeat([0, 1, 2], 20))
        probabilities = generator.dirichlet(np.ones(3), (8, 60))
        fold = deal_folds(labels, np.arange(60), mixing.FOLDS, seed=0)
        for mixed, losses in (
            (mixing.fit("weighted", probabilities, labels).combine(probabilities), optimistic),
            (mixing.fit_out_of_fold("weighted", probabilities, labels, fold)[1], cross_fitted),
        ):
            losses.append(from_probabilities(mixed, labels, CLASSES)["loss"])
    assert np.mean(optimistic) < chance - 0.005 and np.mean(cross_fitted) >= chance


def without_mistakes():
    """Three members of 40 images. Two make one mistake each, in different folds; the first is the most confident, so
    that a fit on the other folds gives it all weight."""
    labels, fold = np.arange(40) % 2, np.arange(40) // 2 % 5
    members = np.stack([onehot(labels, confidence, 2) for confidence in (0.999, 0.9, 0.8)])
    members[0, 4] = members[0, 4, ::-1]  # sure, and wrong
    members[1, 7] = members[1, 7, ::-1]
    return members, labels, fold


def loss_of(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def test_a_fit_without_mistakes_is_bounded_and_never_worse_than_the_mean():
    members, labels, fold = without_mistakes()
    plain, mean = mixing.fit_out_of_fold("mean", members, labels, fold)
    fitted, weighted = mixing.fit_out_of_fold("weighted", members, labels, fold)
    assert loss_of(weighted, labels) <= loss_of(mean, labels)
    others = fold != 2  # without the first member's mistake
    greedy = mixing.fit("weighted", members[:, others], labels[others])
    assert (greedy.weights >= 0.003).all() and (fitted.weights >= 0.003).all()
    assert min(*greedy.temperatures, greedy.last_temperature) > 0.1
    assert loss_of(greedy.combine(members[:, ~others]), labels[~others]) < 2
    assert plain.weights == pytest.approx(1 / 3)


def test_a_weighted_mean_is_never_worse_out_of_fold_than_the_plain_one():
    generator = np.random.default_rng(3)
    for _ in range(10):
        labels = generator.integers(0, 3, 60)
        members = np.stack([calibrated(labels, generator, spread=spread) for spread in generator.uniform(0.5, 9, 4)])
        fold = deal_folds(labels, np.arange(60), mixing.FOLDS, seed=0)
        losses = [
            loss_of(mixing.fit_out_of_fold(method, members, labels, fold)[1], labels) for method in ("weighted", "mean")
        ]
        assert losses[0] <= losses[1]


def test_cross_calibrate_probabilities_are_those_of_the_other_folds():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    sharp, fold = apply_temperature(calibrated(labels, generator), 0.3), np.arange(300) % 3
    result = cross_calibrate(sharp, labels, fold)
    for number in range(3):
        temperature = fit_temperature(logits_of(sharp[fold != number]), labels[fold != number])
        np.testing.assert_allclose(result[fold == number], apply_temperature(sharp[fold == number], temperature))
    assert from_probabilities(result, labels, CLASSES)["ece"] < 0.5 * from_probabilities(sharp, labels, CLASSES)["ece"]


# ---------------------------------------------------------------------------- ensemble


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Three members with independent errors, the second the best."""
    generator, root = np.random.default_rng(0), tmp_path_factory.mktemp("members")
    return [
        finished_run(
            root / str(number),
            guesses(LABELS, accuracy, generator, confidence=confidence),
            LABELS,
            sets=[f"seed={number}"],
        )
        for number, (accuracy, confidence) in enumerate([(0.7, 0.99), (0.85, 0.8), (0.7, 0.5)])
    ]


def test_an_ensemble_is_evaluated_and_written_like_a_model(members, tmp_path):
    results = ensemble(members, str(tmp_path / "out"))
    assert [result.name for result in results] == ["ensemble vote", "ensemble mean", "ensemble weighted"]
    best = max(run.read_result()["balanced_accuracy"] for run in members)
    for result in results:
        run = Run(result.run)
        assert (
            result.run == str(tmp_path / "out" / result.method)
            and run.read_result() == result.to_dict()
            and result.val.rows == 600
        )
        table = run.predictions("val")
        again = from_probabilities(table[[f"p_{name}" for name in CLASSES]].to_numpy(), LABELS, CLASSES)
        assert again.confusion == result.val.confusion and again["loss"] == pytest.approx(result.val["loss"], abs=1e-6)
        assert table["path"].tolist() == members[0].predictions("val")["path"].tolist()
        assert result.best == members[1].root and result.members == [run.root for run in members]
        assert result.temperatures[0] > 2 > 1.2 > result.temperatures[1] and sum(result.weights) == pytest.approx(1)
        assert result.val["ece"] < 0.15 and not result.cross_fitted.duplicates_together
    vote, _, weighted = results
    assert vote.val["balanced_accuracy"] >= best - 0.03 and weighted.val["balanced_accuracy"] >= best - 0.01
    assert np.argmax(weighted.weights) == 1
    votes = np.array(
        [
            members[number].predictions("val")[[f"p_{name}" for name in CLASSES]].to_numpy().argmax(1)
            for number in (1, 0, 2)
        ]
    )
    named = Run(vote.run).predictions("val")["predicted"]
    # The ranking of the two equal members may differ between the folds.
    assert (named != np.array(CLASSES)[mixing.majority_vote(votes)]).mean() < 0.02
    board = leaderboard(members, results)
    assert len(board.rows) == 4 and {row.recipe for row in board.rows} >= {"ensemble vote", "ensemble mean"}


def test_members_that_do_not_fit_are_refused(members, tmp_path):
    out = str(tmp_path / "out")
    probabilities = guesses(LABELS, 0.7, np.random.default_rng(0))
    with pytest.raises(UserError, match="at least two runs"):
        ensemble(members[:1], out)
    with pytest.raises(UserError, match="given twice"):
        ensemble([members[0], members[0]], out)
    with pytest.raises(UserError, match="method average: choose among vote, mean, weighted"):
        ensemble(members, out, methods=["average"])
    with pytest.raises(UserError, match="another order"):
        ensemble([members[0], finished_run(tmp_path / "order", probabilities, LABELS, classes=CLASSES[::-1])], out)
    with pytest.raises(UserError, match="other images"):
        ensemble(
            [
                members[0],
                finished_run(tmp_path / "other", probabilities, LABELS, paths=[f"{n}.jpg" for n in range(600)]),
            ],
            out,
        )
    unfinished = Run(str(tmp_path / "unfinished"))
    unfinished.write_config(CONFIG)
    with pytest.raises(UserError, match="did not finish; continue it with --resume"):
        ensemble([members[0], unfinished], out)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- flips and unlabelled images


def trained(root, prepared, seed, prior):
    """A finished run of an untrained model with large logits on a prepared set."""
    torch.manual_seed(seed)
    run = Run(str(root))
    settings = configuration.from_dict({**configuration.to_dict(CONFIG), "seed": seed})
    model = build(settings.model, 3, load_weights=False)
    with torch.no_grad():
        list(model.head.parameters())[-2].mul_(100)
    about = {
        "config": configuration.to_dict(settings),
        "classes": prepared.classes,
        "prior": prior,
        "epoch": 1,
        "metrics": {},
    }
    storage.write_bytes(run.checkpoint("best"), checkpoint.serialize({**about, "model": model.state_dict()}))
    run.write_config(settings)
    run.write_environment(prepared=prepared.root, data_fingerprint=prepared.fingerprint)
    rows = prepared.rows("val")
    probabilities = directly(run.root, images_of(prepared, rows))
    names = prepared.manifest["path"].iloc[rows].tolist()
    shutil.rmtree(root / "predictions", ignore_errors=True)
    finished_run(root, probabilities, prepared.labels[rows], classes=prepared.classes, paths=names)
    run.write_config(settings)
    run.write_environment(prepared=prepared.root, data_fingerprint=prepared.fingerprint)
    return run


def images_of(prepared, rows):
    from animalclf.data.augment import evaluation_view
    from animalclf.data.loader import load_images

    return evaluation_view(load_images(prepared).views(rows), 76)


def directly(run, images):
    model, _ = checkpoint.load_model(run)
    with torch.no_grad():
        return model(torch.from_numpy(images)).softmax(1).numpy()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    prepared = tiny_prepared(tmp_path_factory.mktemp("prepared"), (24, 16, 8), size=80)
    # The first images of the first class are one group of duplicates.
    manifest = prepared.manifest.assign(group=np.maximum(np.arange(48), 8))
    storage.write_bytes(f"{prepared.root}/manifest.parquet", manifest.to_parquet())
    root = tmp_path_factory.mktemp("pair")
    return prepared, [trained(root / "a", prepared, 0, [0.5, 0.3, 0.2]), trained(root / "b", prepared, 1, [1 / 3] * 3)]


def test_flips_are_the_mean_over_the_mirror_image(pair, tmp_path):
    prepared, members = pair
    plain, flipped = (
        ensemble(members, str(tmp_path / name), methods=["mean"], views=views)[0]
        for name, views in (("plain", "none"), ("flips", "flip"))
    )
    assert flipped.name == "ensemble mean with views flip" and plain.cross_fitted == CrossFitting(
        folds=5, duplicates_together=True
    )
    rows = prepared.rows("val")
    images, labels = images_of(prepared, rows), prepared.labels[rows]
    both = np.stack(
        [(directly(run.root, images) + directly(run.root, images[:, :, ::-1].copy())) / 2 for run in members]
    )
    assert flipped.temperatures == pytest.approx(mixing.fit("mean", both, labels).temperatures, rel=1e-3)
    assert flipped.temperatures != pytest.approx(plain.temperatures, rel=1e-3)
    with pytest.raises(UserError, match="changed since the training"):
        broken = Run(str(tmp_path / "broken"))
        shutil.copytree(members[0].root, broken.root)
        broken.write_environment(prepared=prepared.root, data_fingerprint="other")
        ensemble([members[1], broken], str(tmp_path / "out"), views="flip")


def test_evaluate_gives_the_metrics_of_the_training(pair):
    _, members = pair
    assert evaluate(members[0].root).confusion == members[0].read_result()["val"]["confusion"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five PNG images and an unreadable one."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    images = generator.integers(0, 255, (5, 80, 80, 3), np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number + 7}.png")
    (folder / "9a.png").write_bytes(b"no image")
    return folder, images


@pytest.mark.ray
def test_a_submission_of_an_ensemble(pair, photos, tmp_path, ray_local, monkeypatch):
    from animalclf.data.augment import evaluation_view
    from animalclf.inference import predict

    folder, images = photos
    members, names = pair[1], pair[0].classes
    sample = tmp_path / "sample.csv"
    sample.write_text(
        "Id,Class\n" + "".join(f"{name},class0\n" for name in sorted(path.name for path in folder.iterdir()))
    )
    options = {"prior": "uniform", "sample_submission": str(sample), "progress": False, "views": "flip"}
    results = ensemble(members, str(tmp_path / "out"), data=str(folder), **options)
    small = evaluation_view(images, 76)
    both = np.stack([(directly(run.root, small) + directly(run.root, small[:, :, ::-1].copy())) / 2 for run in members])
    for result in results:
        table = pd.read_parquet(result.predictions).set_index("path")
        assert len(table) == result.images == 6 and result.unreadable[0].path == "9a.png"
        assert table.loc["9a.png", [f"p_{name}" for name in names]].tolist() == pytest.approx([1 / 3] * 3)
        cooled = [
            apply_temperature(member, temperature)
            for member, temperature in zip(both, result.temperatures, strict=True)
        ]
        cooled[0] = priors.adjust(cooled[0], np.array([0.5, 0.3, 0.2]), np.full(3, 1 / 3))
        if result.method != "vote":
            mixed = apply_temperature(np.tensordot(result.weights, np.stack(cooled), 1), result.last_temperature)
            readable = [f"{number + 7}.png" for number in range(5)]
            assert table.loc[readable, [f"p_{name}" for name in names]].to_numpy() == pytest.approx(mixed, abs=2e-3)
        lines = Path(result.submission).read_text().splitlines()
        assert lines[0] == "Id,Class"
        assert [line.split(",")[0] for line in lines[1:]] == sorted(path.name for path in folder.iterdir())
        assert dict(line.split(",") for line in lines[1:]) == dict(zip(table["id"], table["predicted"], strict=True))
        assert Run(result.run).read_result() == result.to_dict()
        json.dumps(result.to_dict(), allow_nan=False)

    predicted, cached = [], next((tmp_path / "out" / "members").glob("b-*")) / "predictions.parquet"

    def copied(run, data, out, **options):
        predicted.append(run)
        storage.write_bytes(f"{out}/predictions.parquet", cached.read_bytes())

    monkeypatch.setattr(predict, "predict", copied)
    again = ensemble(members, str(tmp_path / "out"), data=str(folder), **options)
    assert predicted == [] and again == results  # from the cache
    other = Run(str(tmp_path / "other"))
    shutil.copytree(members[1].root, other.root)
    ensemble([members[0], other], str(tmp_path / "out"), data=str(folder), methods=["mean"], **options)
    assert predicted == [other.root]
    shutil.copy(members[0].checkpoint("best"), other.checkpoint("best"))
    ensemble([members[0], other], str(tmp_path / "out"), data=str(folder), methods=["mean"], **options)
    assert predicted == [other.root] * 2  # another checkpoint in the same folder
    Image.fromarray(images[0]).save(folder / "12.png")
    with pytest.raises(UserError, match="its images changed"):  # `copied` has no row for it
        ensemble(members, str(tmp_path / "out"), data=str(folder), progress=False)
    assert predicted[2:] == [members[0].root]


def test_an_impossible_submission_is_refused_before_the_prediction(pair, photos, tmp_path):
    out, members = tmp_path / "out", pair[1]
    (tmp_path / "sample.csv").write_text("id,category\n7.png,class0\n55.png,class0\n")
    with pytest.raises(UserError, match=r"55\.png"):
        ensemble(members, str(out), data=str(photos[0]), sample_submission=str(tmp_path / "sample.csv"))
    with pytest.raises(UserError, match="no class 'wolf'"):
        ensemble(members, str(out), data=str(photos[0]), prior="wolf=1")
    with pytest.raises(UserError, match="no such folder"):
        ensemble(members, str(out), data=str(tmp_path / "nowhere"))
    assert not out.exists()


# ---------------------------------------------------------------------------- votes over submissions


def submissions(folder, *columns, ids=("1.jpg", "2.jpg", "10.jpg"), header="id,category"):
    files = []
    for number, column in enumerate(columns):
        file = folder / f"{number}.csv"
        file.write_text(
            header + "\n" + "".join(f"{name},{category}\n" for name, category in zip(ids, column, strict=True))
        )
        files.append(str(file))
    return files


def test_a_vote_over_submissions_by_hand(tmp_path):
    files = submissions(tmp_path, ["ape", "ape", "ape"], ["bee", "bee", "ape"], ["cow", "bee", "ape"])
    shuffled = Path(files[2]).read_text().splitlines()
    Path(files[2]).write_text("\n".join([shuffled[0], *shuffled[:0:-1]]) + "\n")
    result = vote_submissions(files, str(tmp_path / "out"))
    assert Path(result.submission).read_text() == "id,category\n1.jpg,ape\n2.jpg,bee\n10.jpg,ape\n"
    assert result.submission == str(tmp_path / "out" / "submission.csv")
    assert (result.rows, result.unanimous, result.ties, result.changed) == (3, 1, 1, 1)
    vote_submissions([files[1], files[0]], str(tmp_path / "two.csv"))
    assert (tmp_path / "two.csv").read_text() == "id,category\n1.jpg,bee\n2.jpg,bee\n10.jpg,ape\n"


def test_a_vote_refuses_the_options_of_an_ensemble_of_runs(tmp_path):
    files = submissions(tmp_path, ["ape"] * 3, ["bee"] * 3)
    with pytest.raises(UserError, match="has no use for data, views"):
        animalclf.ensemble(files, out=tmp_path / "out", data=tmp_path, views="flip")
    assert not (tmp_path / "out").exists()


def test_submissions_that_do_not_fit_are_refused(tmp_path):
    first, second = submissions(tmp_path, ["ape"] * 3, ["bee"] * 3)
    out = str(tmp_path / "out.csv")
    for text, message in (
        (
            "id,category\n1.jpg,a\n2.jpg,a\n7.jpg,a\n",
            r"1\.csv: other ids than .*0\.csv: 1 not in .*\(first '7.jpg'\); 1 missing \(first '10.jpg'\)",
        ),
        ("id,category\n1.jpg,a\n2.jpg,a\n", r"1\.csv: other ids than .*0\.csv: 1 missing \(first '10.jpg'\)"),
        ("id,category\n1.jpg,a\n2.jpg,a\n10.jpg,a\n2.jpg,b\n", r"1\.csv: the id '2.jpg' occurs more than once"),
        ("Id,Class\n1.jpg,a\n2.jpg,a\n10.jpg,a\n", r"1\.csv: the header is Id,Class, that of .*0\.csv is id,category"),
        ("id,category,more\n1.jpg,a,b\n", "two columns"),
    ):
        Path(second).write_text(text)
        with pytest.raises(UserError, match=message):
            vote_submissions([first, second], out)
    with pytest.raises(UserError, match="at least two"):
        vote_submissions([first], out)
    with pytest.raises(UserError, match="given twice"):
        vote_submissions([first, first], out)
    with pytest.raises(UserError, match="no such file"):
        vote_submissions([first, str(tmp_path / "none.csv")], out)
    assert not Path(out).exists()

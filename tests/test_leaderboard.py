import csv
import io
import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console, Group
from run_folders import CLASSES, ensemble_result, finished_run, guesses

from animalclf.errors import UserError
from animalclf.metrics import from_probabilities, headline_metrics, significance
from animalclf.report.leaderboard import leaderboard
from animalclf.report.leaderboard_render import pairs_table, table, to_csv, to_json, to_markdown, write
from animalclf.rows import Leaderboard, Spread
from animalclf.runs import Run

LABELS = np.repeat([0, 1, 2], [60, 40, 20])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two recipes of three seeds: accuracy 0.9 and 0.6."""
    generator, root = np.random.default_rng(0), tmp_path_factory.mktemp("runs")
    runs = []
    for name, accuracy in (("vgg16_pooled", 0.9), ("resnet18", 0.6)):
        for seed in (2, 0, 1):
            run = finished_run(
                root / f"{name}-{seed}",
                guesses(LABELS, accuracy, generator),
                LABELS,
                recipe=name,
                sets=[f"seed={seed}"],
            )
            runs.append(run)
    return runs


def test_a_leaderboard_of_known_metrics(runs):
    board = leaderboard(runs[::-1])
    good, poor = board.rows
    assert (
        [good.recipe, poor.recipe] == ["vgg16_pooled", "resnet18"] and good.seeds == [0, 1, 2] and board.images == 120
    )
    values = [run.read_result()["balanced_accuracy"] for run in (runs[1], runs[2], runs[0])]
    score = good["balanced_accuracy"]
    assert (
        score.values == values
        and score.mean == pytest.approx(np.mean(values))
        and score.std == pytest.approx(np.std(values, ddof=1))
    )
    assert score.low < score.mean < score.high < poor["balanced_accuracy"].low + 1
    assert good.best_epoch == Spread(mean=2, std=0, low=2, high=2, values=[2, 2, 2])
    assert good.seconds_to_best == 21 and good.device_seconds_to_best == 42 and good.images_per_s == 100
    assert (good.parameters, good.trainable) == (14_714_688 + 1024 * 3 + 3, 1024 * 3 + 3)
    assert good.runs == [runs[1].root, runs[2].root, runs[0].root]
    (pair,) = board.pairs
    assert (pair.better, pair.worse, pair.significant) == ("vgg16_pooled", "resnet18", True)
    assert (
        pair.difference == pytest.approx(score.mean - poor["balanced_accuracy"].mean)
        and pair.low > 0.1
        and pair.p < 0.001
    )


def test_a_difference_that_rounds_to_zero_has_no_sign(runs):
    board = leaderboard(runs)
    pairs = [replace(pair, difference=-1e-5, low=-0.2, high=-1e-9) for pair in board.pairs]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(pairs_table(replace(board, pairs=pairs)))
    text = console.export_text() + to_markdown(replace(board, pairs=pairs))
    assert "-0.200 to 0.000" in text and "-0.000" not in text


def test_one_seed_has_the_interval_of_its_result(runs):
    row = leaderboard(runs[:1]).rows[0]
    result = runs[0].read_result()["val"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert [row[name].low, row[name].high] == result["intervals"][name] and row[name].std is None
    assert row["loss"].low < result["loss"] < row["loss"].high and row["ece"].values == [result["ece"]]


def test_a_metric_that_a_run_folder_lacks_is_computed_from_its_probabilities(runs, tmp_path):
    (row,) = leaderboard(runs[:1]).rows
    shutil.copytree(runs[0].root, tmp_path / "older")
    older, result = Run(str(tmp_path / "older")), runs[0].read_result()
    del result["val"]["kappa"], result["val"]["intervals"]["kappa"]
    older.write_result(result)
    (other,) = leaderboard([older]).rows
    assert other["kappa"].mean == row["kappa"].mean and other["kappa"].low == pytest.approx(row["kappa"].low, abs=0.02)


def test_two_configurations_of_one_name_are_two_recipes(tmp_path):
    generator = np.random.default_rng(0)
    runs = []
    for seed in (0, 1):
        for lr in (0.001, 0.0010000001):
            sets = [f"seed={seed}", f"optim.lr={lr}"]
            runs.append(finished_run(tmp_path / f"{seed}-{lr}", guesses(LABELS, 0.8, generator), LABELS, sets=sets))
    board = leaderboard(runs)
    assert {row.recipe: row.seeds for row in board.rows} == {
        "vgg16_pooled optim.lr=0.001": [0, 1],
        "vgg16_pooled optim.lr=0.0010000001": [0, 1],
    }
    with pytest.raises(UserError, match=r"again: the same configuration and seed as .*0-0\.001"):
        leaderboard(
            [
                *runs,
                finished_run(
                    tmp_path / "again", guesses(LABELS, 0.8, generator), LABELS, sets=["seed=0", "optim.lr=0.001"]
                ),
            ]
        )


def test_an_ensemble_is_a_row_of_the_leaderboard(runs, tmp_path):
    probabilities = np.mean(
        [run.predictions("val")[[f"p_{name}" for name in CLASSES]].to_numpy() for run in runs[:3]], 0
    )
    run = finished_run(tmp_path / "mean", probabilities, LABELS)
    result = ensemble_result(run, runs[:3])
    board = leaderboard(runs, [result])
    row = next(row for row in board.rows if row.kind == "ensemble")
    assert row.recipe == "ensemble mean" and row.seeds == [] and row.best_epoch is None and row.images_per_s is None
    assert (
        row.parameters == 3 * board.rows[1].parameters
        and row.seconds_to_best == 63
        and row.device_seconds_to_best == 126
    )
    assert len(board.pairs) == 3 and Leaderboard.from_dict(json.loads(to_json(board))) == board


def test_runs_that_cannot_be_compared_are_named(runs, tmp_path):
    generator = np.random.default_rng(0)
    probabilities = guesses(LABELS, 0.8, generator)
    with pytest.raises(UserError, match="nothing to compare"):
        leaderboard([])
    with pytest.raises(UserError, match="given twice"):
        leaderboard([runs[0], runs[0]])
    (tmp_path / "running").mkdir()
    running = Run(str(tmp_path / "running"))
    running.write_config(runs[0].config())
    with pytest.raises(UserError, match=r"running/result.json: does not exist .*--resume"):
        leaderboard([runs[0], running])
    with pytest.raises(UserError, match=r"order: other classes than .*the same names in another order"):
        leaderboard([runs[0], finished_run(tmp_path / "order", probabilities, LABELS, classes=CLASSES[::-1])])
    with pytest.raises(UserError, match=r"other classes than .*only here: dog; only there: cow"):
        leaderboard([runs[0], finished_run(tmp_path / "dog", probabilities, LABELS, classes=[*CLASSES[:2], "dog"])])
    paths = runs[0].predictions("val")["path"].tolist()
    reordered_run = finished_run(
        tmp_path / "moved", probabilities, LABELS, paths=["else.jpg", *paths[1:]], sets=["seed=9", "data.split_seed=5"]
    )
    with pytest.raises(
        UserError, match=r"data.split_seed: 0 -> 5; 1 of its 120 images missing .*first else.jpg.*first ape/0.jpg"
    ):
        leaderboard([runs[0], reordered_run])
    fewer = finished_run(tmp_path / "fewer", probabilities[:-2], LABELS[:-2], sets=["seed=9"])
    with pytest.raises(UserError, match=r"other images than .*: 2 of the other's 120"):
        leaderboard([runs[0], fewer])
    wrong = np.where(np.arange(len(LABELS)) == 3, 1, LABELS)
    with pytest.raises(UserError, match=r"ape/3.jpg is labelled 'bee', but 'ape'"):
        leaderboard([runs[0], finished_run(tmp_path / "relabelled", probabilities, wrong, paths=paths)])
    result = runs[0].read_result()
    del result["val"]
    (tmp_path / "without").mkdir()
    Run(str(tmp_path / "without")).write_result(result)
    with pytest.raises(UserError, match="without a validation split"):
        leaderboard([runs[0], Run(str(tmp_path / "without"))])


def test_the_order_of_the_images_does_not_matter(runs, tmp_path):
    predictions, result = runs[0].predictions("val"), runs[0].read_result()
    turned = Run(str(tmp_path / "turned"))
    turned.write_config(runs[3].config())
    turned.write_metrics(runs[3].metrics())
    turned.write_result(result)
    turned.write_predictions("val", predictions.iloc[::-1])
    (pair,) = leaderboard([runs[0], turned]).pairs
    assert pair.difference == 0 and pair.p == 1 and not pair.significant


def test_renderings(runs, tmp_path):
    generator = np.random.default_rng(0)
    long = finished_run(
        tmp_path / "long",
        guesses(LABELS, 0.7, generator),
        LABELS,
        recipe="big_cnn",
        sets=["name=a|long name of a recipe [b] it is"],
    )
    board = leaderboard([*runs, long])
    widest = {"images_per_s": 12_345.6, "seconds_to_best": 3 * 3600 + 55 * 60.0, "parameters": 138_357_544}
    board = replace(board, rows=[replace(row, **widest) for row in board.rows])
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(Group(table(board), pairs_table(board)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    for expected in (
        "vgg16_pooled",
        "[b]",
        "3 h 55 min",
        "138.4 M",
        "12,346",
        f"{board.rows[0]['balanced_accuracy'].mean:.3f} ± ",
        "< 0.001",
    ):
        assert expected in text
    rows = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert [row["recipe"] for row in rows] == [row.recipe for row in board.rows] and rows[0]["seeds"] == "0 1 2"
    assert (
        float(rows[0]["loss_high"]) == board.rows[0]["loss"].high
        and {row["recipe"]: row["loss_std"] for row in rows}[long.config().name] == ""
    )
    lines = to_markdown(board).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines[:5]} == {
        len(headline_metrics()) + 8
    } and r"a\|long" in "".join(lines[2:5])
    urls = write(board, str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["leaderboard.csv", "leaderboard.json", "leaderboard.md"]
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text()) == board.to_dict() and set(urls) == {
        "csv",
        "json",
        "md",
    }


def test_costs_on_cached_features_are_marked(tmp_path):
    probabilities = guesses(LABELS, 0.8, np.random.default_rng(0))
    heads, network = (
        finished_run(tmp_path / recipe, probabilities, LABELS, recipe=recipe) for recipe in ("vgg16_pooled", "big_cnn")
    )
    heads.write_metrics([replace(row, features_seconds=7.0 if row.epoch == 1 else None) for row in heads.metrics()])
    combined = finished_run(tmp_path / "mean", probabilities, LABELS)
    board = leaderboard([heads, network], [ensemble_result(combined, [heads, network])])
    features = {row.recipe: row.features_seconds for row in board.rows}
    assert features == {"vgg16_pooled": 7.0, "big_cnn": None, "ensemble mean": 7.0}
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table(board))
    text = " ".join(console.export_text().split())
    assert text.count("100*") == text.count(" 21 s*") == 1 and "(7.0 s of vgg16_pooled)" in text
    markdown = to_markdown(board)
    assert markdown.count(r"100\*") == 1 and markdown.count("\n\\* on features of a frozen base") == 1
    assert "*" not in to_markdown(leaderboard([network])).replace("**", "")
    seconds = {row["recipe"]: row["features_seconds"] for row in csv.DictReader(io.StringIO(to_csv(board)))}
    assert seconds == {"vgg16_pooled": "7.0", "big_cnn": "", "ensemble mean": "7.0"}


# ---------------------------------------------------------------------------- significance


def test_student_by_the_book():
    assert [significance.student_quantile(freedom) for freedom in (1, 2, 5, 30)] == pytest.approx(
        [12.706, 4.3027, 2.5706, 2.0423], rel=1e-3
    )
    assert significance.student_quantile(1e9) == pytest.approx(1.96, abs=1e-3)
    assert significance.student_p(3.0, 1) == pytest.approx(1 - 2 / math.pi * math.atan(3), rel=1e-4)
    assert significance.student_p(0, 7) == pytest.approx(1) and 0 < significance.student_p(8, 1e6) < 1e-13


def test_holm_by_hand():
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.9]) == [1, 1] and significance.holm([]) == []


def test_a_difference_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    first, second = np.array([[1, 1, 1, 1, 1, 0]], bool), np.array([[1, 1, 0, 0, 0, 1]], bool)
    difference, low, high, p = significance.difference(first, second, labels)
    assert difference == pytest.approx(0.5 * 2 / 4 + 0)
    deviation = math.sqrt(2 * (1 / 8) ** 2 + 2 * (1 / 4) ** 2)
    assert low == pytest.approx(0.25 - significance.student_quantile(5) * deviation) and high == 1  # not 1.27
    assert p == pytest.approx(significance.student_p(0.25 / deviation, 5))
    assert significance.difference(first, first, labels) == (0, 0, 0, 1)


def test_three_images_are_not_significant():
    """Three of three better: p = 0.25 for coin tosses, although the variance of equal differences is 0."""
    everything, nothing = np.ones((1, 3), bool), np.zeros((1, 3), bool)
    difference, _, high, p = significance.difference(everything, nothing, np.array([0, 1, 2]))
    assert p > 0.1 and (difference, high) == (1, 1)  # an accuracy cannot be higher by more
    assert significance.difference(nothing, everything, np.array([0, 1, 2]))[1] == -1


def trainings(generator, seeds, labels, seed_spread, hardness, better=0.0):
    """Correctness bool (seeds, N) of one recipe: images differ in hardness, seeds in luck."""
    luck = generator.normal(0, seed_spread, (seeds, 1))
    return generator.normal(0, 1, (seeds, len(labels))) + hardness + luck + 1 + better > 0


@pytest.mark.parametrize(
    "seeds, images, seed_spread", [(1, 100, 0.0), (2, 100, 0.3), (2, 1000, 0.2), (3, 1000, 0.0), (5, 400, 0.2)]
)
def test_the_error_rates_of_the_difference_test(seeds, images, seed_spread):
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(10), images // 10)
    false_alarms, covered, detected, rounds = 0, 0, 0, 100
    for _ in range(rounds):
        hardness = generator.normal(0, 1, len(labels))
        same = [trainings(generator, seeds, labels, seed_spread, hardness) for _ in range(2)]
        _, low, high, p = significance.difference(*same, labels)
        false_alarms += p < 0.05
        covered += low <= 0 <= high
        better = trainings(generator, seeds, labels, 0.05 * (seeds > 1), hardness, better=1.5)
        worse = trainings(generator, seeds, labels, 0.05 * (seeds > 1), hardness)
        detected += significance.difference(better, worse, labels)[3] < 0.05
    assert false_alarms <= 0.05 * rounds + 2.6 * math.sqrt(0.05 * 0.95 * rounds)
    assert false_alarms == rounds - covered
    assert detected > 0.8 * rounds


@pytest.mark.parametrize("seeds, seed_spread", [(1, 0.0), (2, 0.3), (4, 0.0), (4, 0.3)])
def test_the_interval_covers_the_truth(seeds, seed_spread):
    """The truth is the mean over all seeds and images. The interval of one seed is of that training alone: no luck."""
    generator = np.random.default_rng(2)
    labels, rounds, covered = np.repeat(np.arange(4), 50), 100, 0
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2 * (2 + seed_spread**2))))
    for _ in range(rounds):
        right = trainings(generator, seeds, labels, seed_spread, generator.normal(0, 1, len(labels)))
        pick = generator.integers(0, 50, (200, 200)) + 50 * np.repeat(np.arange(4), 50)
        low, high = significance.interval(right.mean(1), right[:, pick].mean(2).T, len(labels))
        covered += low <= truth <= high
    assert covered >= 0.8 * rounds


def test_equal_seeds_have_the_interval_of_the_images(runs, tmp_path):
    probabilities = runs[3].predictions("val")[[f"p_{name}" for name in CLASSES]].to_numpy()
    (row,) = leaderboard(
        [finished_run(tmp_path / str(seed), probabilities, LABELS, sets=[f"seed={seed}"]) for seed in range(3)]
    ).rows
    for name, (low, high) in from_probabilities(probabilities, LABELS, CLASSES).intervals.items():
        assert [row[name].low, row[name].high] == pytest.approx([low, high], abs=0.02)


def test_copies_of_images_do_not_make_a_difference_significant(tmp_path):
    generator = np.random.default_rng(4)
    models = [
        (name, guesses(LABELS, accuracy, generator)) for name, accuracy in (("vgg16_pooled", 0.9), ("vgg16", 0.8))
    ]

    def board(folder, repeats, groups):
        labels, known = np.repeat(LABELS, repeats), np.repeat(np.arange(120), repeats) if groups else None
        runs = [
            finished_run(tmp_path / folder / name, np.repeat(each, repeats, 0), labels, recipe=name, groups=known)
            for name, each in models
        ]
        return leaderboard(runs)

    alone, unknown, known = board("alone", 1, True), board("unknown", 6, False), board("known", 6, True)
    assert board("plain", 1, False).pairs == alone.pairs
    assert known.pairs[0].p_alone == pytest.approx(alone.pairs[0].p_alone, rel=1e-6)
    assert unknown.pairs[0].p_alone < 0.2 * known.pairs[0].p_alone
    for name in ("loss", "ece", "macro_f1"):
        (low, high), (narrow_low, narrow_high) = (
            (each.rows[0][name].low, each.rows[0][name].high) for each in (known, unknown)
        )
        assert high - low > 1.5 * (narrow_high - narrow_low)
        assert (low, high) == pytest.approx((alone.rows[0][name].low, alone.rows[0][name].high), abs=0.03)

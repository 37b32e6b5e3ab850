"""A metric registered at run time appears wherever metrics do, without an edit anywhere else."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import lite_config, tiny_config, tiny_prepared
from rich.console import Console

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.metrics import METRICS, Counts, Predictions
from animalclf.metrics.registry import count_metric, prediction_metric
from animalclf.metrics.text import epoch_text


@pytest.fixture
def custom_metrics():
    """A metric of counts and one of probabilities, registered for one test."""

    @count_metric("x_test_rate", title="x test rate", higher_is_better=False)
    def x_test_rate(counts: Counts) -> np.ndarray:
        return 1 - counts.hits.sum(-1) / counts.support.sum()

    @prediction_metric("x_test_score", title="x test score", higher_is_better=False, bounds=(0.0, 2.0))
    def x_test_score(predictions: Predictions) -> float:
        probabilities = predictions.probabilities
        true = np.eye(probabilities.shape[1])[predictions.labels]
        return float(((probabilities - true) ** 2).sum(1).mean())

    yield
    METRICS.unregister("x_test_rate")
    METRICS.unregister("x_test_score")


def test_a_metric_registered_at_run_time_is_in_every_result(custom_metrics, tmp_path):
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.leaderboard_render import write
    from animalclf.report.page import write_report
    from animalclf.runs import Run
    from animalclf.training import launch
    from animalclf.training.display import results_table

    prepared = tiny_prepared(tmp_path / "prepared", (8, 8, 8))
    config = lite_config(epochs=1, train__batch_size=8, train__monitor="x_test_rate")
    runs = [Run(str(tmp_path / f"run{seed}")) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        seeded = configuration.from_dict({**configuration.to_dict(config), "seed": seed})
        launch.record_run(seeded, prepared, run)
        launch.train_local(seeded, prepared, run, lambda event: None)

    rows = [json.loads(line) for line in Path(runs[0].root, "metrics.jsonl").read_text().splitlines()]
    assert [row["val_x_test_rate"] for row in rows] == pytest.approx([1 - row["val_accuracy"] for row in rows])
    result = json.loads(Path(runs[0].root, "result.json").read_text())
    assert result["x_test_rate"] == result["val"]["x_test_rate"] == min(row["val_x_test_rate"] for row in rows)
    assert 0 < result["val"]["x_test_score"] < 2 and "x_test_rate" in result["val"]["intervals"]

    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(results_table(runs[0].result()), epoch_text(runs[0].metrics()[0].val))
    text = console.export_text()
    assert (
        "val x test rate" in text
        and "val x test score" in text
        and f"x test rate {rows[0]['val_x_test_rate']:.4f}" in text
    )

    board = leaderboard(runs)
    write(board, str(tmp_path / "board"))
    row = json.loads((tmp_path / "board" / "leaderboard.json").read_text())["rows"][0]
    assert {"x_test_rate", "x_test_score"} <= row.keys() and row["x_test_score"]["values"][0] == result["val"][
        "x_test_score"
    ]
    header = (tmp_path / "board" / "leaderboard.csv").read_text().splitlines()[0]
    assert "x_test_rate_mean" in header and "x test score" in (tmp_path / "board" / "leaderboard.md").read_text()
    for name, folders in (("one", runs[:1]), ("both", runs)):
        write_report(folders, str(tmp_path / name), title="Test", board=leaderboard(folders))
        html = (tmp_path / name / "report.html").read_text()
        assert "x test rate" in html and "x test score" in html


def test_an_unknown_monitor_is_refused_with_the_nearest_metric():
    with pytest.raises(UserError, match=r"train.monitor: 'balanced_acuracy'.*did you mean 'balanced_accuracy'"):
        tiny_config(train__monitor="balanced_acuracy")
    with pytest.raises(UserError, match=r"train\.monitor: 'ece'"):  # not known after each epoch
        tiny_config(train__monitor="ece")
    assert tiny_config(train__monitor="kappa").train.monitor == "kappa"


def test_a_key_is_given_once():
    with pytest.raises(ValueError, match="kappa"):
        count_metric("kappa", title="another")(lambda counts: counts.hits)

"""JSON files as older code wrote them (tests/old_files, of commit ee17a65) open as rows and keep every key and value."""

import json
from pathlib import Path

import pytest

from animalclf.rows import (
    ComparisonSummary,
    EnsembleResult,
    EpochRow,
    EvaluationResult,
    Leaderboard,
    TrainingResult,
)

FOLDER = Path(__file__).parent / "old_files"
FILES = {
    "result": TrainingResult,
    "ensemble": EnsembleResult,
    "evaluate": EvaluationResult,
    "leaderboard": Leaderboard,
    "summary": ComparisonSummary,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_keeps_its_keys_and_values(name):
    content = json.loads((FOLDER / f"{name}.json").read_text())
    assert FILES[name].from_dict(content).to_dict() == content


def test_a_history_keeps_its_keys_and_values():
    rows = [json.loads(line) for line in (FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and [EpochRow.from_dict(row).to_dict() for row in rows] == rows


def test_metrics_are_found_by_key():
    board = Leaderboard.from_dict(json.loads((FOLDER / "leaderboard.json").read_text()))
    assert set(board.rows[0].metrics) == {"balanced_accuracy", "accuracy", "macro_f1", "loss", "ece"}
    assert board.rows[0]["loss"].mean == board.rows[0].metrics["loss"].mean
    ensemble = EnsembleResult.from_dict(json.loads((FOLDER / "ensemble.json").read_text()))
    assert set(ensemble.metrics) == {"accuracy", "balanced_accuracy", "macro_f1", "loss"}
    assert ensemble.val["top2_accuracy"] <= ensemble.val["top3_accuracy"]

"""Files with the JSON keys of older versions: stored files (tests/old_files, of commit ee17a65) and a run folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import lite_config, tiny_prepared, without_times

from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import INFO, MANIFEST, open_prepared
from animalclf.inference.evaluate import evaluate
from animalclf.report.leaderboard import leaderboard
from animalclf.report.page import write_report
from animalclf.rows import (
    ComparisonSummary,
    EnsembleResult,
    EpochRow,
    EvaluationResult,
    Leaderboard,
    Row,
    TrainingResult,
)
from animalclf.runs import Run
from animalclf.training import checkpoint, train
from animalclf.training.distributed import RankContext
from animalclf.utils import storage

FOLDER = Path(__file__).parent / "old_files"
FILES: dict[str, type[Row]] = {
    "result": TrainingResult,
    "ensemble": EnsembleResult,
    "evaluate": EvaluationResult,
    "leaderboard": Leaderboard,
    "summary": ComparisonSummary,
}
NEW_KEYS = {
    "pictures": "images", "pictures_per_s": "images_per_s", "wait_share": "wait_fraction",
    "keep_seconds": "checkpoint_seconds", "handover_seconds": "copy_seconds", "keep": "checkpoint", "handover": "copy",
    "prior_shares": "class_priors", "copies_together": "duplicates_together",
    "a": "better", "b": "worse", "real": "significant",
}  # fmt: skip
OLD_KEYS = {new: old for old, new in NEW_KEYS.items()}


def renamed(content: Any, names: dict[str, str]) -> Any:
    """`content` with other keys, in every dict of it."""
    if isinstance(content, dict):
        return {names.get(key, key): renamed(value, names) for key, value in content.items()}
    return [renamed(item, names) for item in content] if isinstance(content, list) else content


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_old_keys_is_read_and_written_with_new_ones(name):
    expected = renamed(stored(name), NEW_KEYS)
    if name == "summary":
        expected["data"]["listing_hash"] = expected["data"].pop("images")
    assert expected != stored(name)
    row = FILES[name].from_dict(stored(name))
    assert row.to_dict() == expected and FILES[name].from_dict(expected) == row


def test_a_history_with_old_keys_is_read():
    lines = [json.loads(line) for line in (FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and [EpochRow.from_dict(line).to_dict() for line in lines] == renamed(lines, NEW_KEYS)


def test_metrics_are_found_by_key():
    board = Leaderboard.from_dict(stored("leaderboard"))
    assert set(board.rows[0].metrics) == {"balanced_accuracy", "accuracy", "macro_f1", "loss", "ece"}
    assert board.rows[0]["loss"].mean == board.rows[0].metrics["loss"].mean
    ensemble = EnsembleResult.from_dict(stored("ensemble"))
    assert set(ensemble.metrics) == {"accuracy", "balanced_accuracy", "macro_f1", "loss"}
    assert ensemble.val["top2_accuracy"] <= ensemble.val["top3_accuracy"]


def test_a_prepared_set_with_old_keys_and_columns_is_read(tmp_path):
    root = tiny_prepared(tmp_path, (4, 4), size=8).root
    manifest, info = storage.read_table(f"{root}/{MANIFEST}"), storage.read_json(f"{root}/{INFO}")
    storage.write_json(f"{root}/{INFO}", {**info, "pictures": 8, "copies": {"near": 1}, "bad": [{"path": "a"}]})
    columns = {"copy_of": "b", "copy_how": "near", "copy_confidence": 0.9}
    storage.write_table(f"{root}/{MANIFEST}", manifest.assign(**columns))
    prepared = open_prepared(root)
    keys = {"images": 8, "duplicates": {"near": 1}, "unreadable": [{"path": "a"}]}
    assert prepared.info == {**info, **keys}
    new_columns = ["duplicate_of", "duplicate_kind", "duplicate_confidence"]
    assert list(prepared.manifest.columns) == [*manifest.columns, *new_columns]
    assert prepared.manifest.loc[0, new_columns].tolist() == list(columns.values())


def test_a_run_folder_with_old_keys_is_resumed_evaluated_and_reported(tmp_path):
    prepared = tiny_prepared(tmp_path / "prepared", (20, 16, 8), size=40)
    images, uninterrupted, old = load_images(prepared), Run(str(tmp_path / "uninterrupted")), Run(str(tmp_path / "old"))

    def train_until(run: Run, epochs: int) -> TrainingResult:
        config = lite_config(epochs)
        run.write_config(config)
        run.write_environment(prepared=prepared.root, data_fingerprint=prepared.fingerprint)
        return train.train(config, prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext())

    train_until(old, 2)
    result, history = old.read_result(), old.metrics()
    old.write_result(renamed(result, OLD_KEYS))
    lines = [json.dumps(renamed(row.to_dict(), OLD_KEYS)) + "\n" for row in history]
    storage.write_bytes(old.url("metrics.jsonl"), "".join(lines).encode())
    for which in ("best", "last"):
        content = checkpoint.load(old.checkpoint(which))
        rows = {key: renamed(content[key], OLD_KEYS) for key in ("history", "metrics") if key in content}
        storage.write_bytes(old.checkpoint(which), checkpoint.serialize({**content, **rows}))
    assert "pictures_per_s" in lines[0] and old.metrics() == history and old.result().to_dict() == result

    assert evaluate(old.root).metrics == old.result().val.metrics
    write_report([old], str(tmp_path), title="old", board=leaderboard([old]))
    page = (tmp_path / "report.html").read_text()
    assert f"<td>{old.result().images_per_s:,.0f}</td>" in page and ">checkpoints<" in page
    train_until(old, 3)
    train_until(uninterrupted, 3)
    assert [without_times(row) for row in old.metrics()] == [without_times(row) for row in uninterrupted.metrics()]
    assert old.metrics()[:2] == history and "images_per_s" in old.read_result()

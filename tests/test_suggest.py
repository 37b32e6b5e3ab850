"""What to label next: the selection, near-duplicates once, and the files for a person."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import tiny_prepared
from run_folders import CONFIG, TINY_CLASSES, untrained_run_folder

import animalclf
from animalclf import config as configuration
from animalclf.cli import main
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.inference.features import ImageFeatures
from animalclf.labelling import selection, suggest
from animalclf.labelling.features import labelled_features
from animalclf.labelling.new_images import comparable, is_new
from animalclf.labelling.selection import nearest, select, uncertainty
from animalclf.labelling.suggest import Labelled, choose
from animalclf.prepare import sources
from animalclf.runs import Run
from benchmarks.image_changes import drawn, gain, jpeg

NO_LABELS = np.empty((0, 8), np.float32)


def clusters(sizes, spread=0.05, seed=0) -> np.ndarray:
    """Features float32 (N, 8) of clusters around different directions."""
    generator = np.random.default_rng(seed)
    centres = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0)
    return (centres + spread * generator.normal(size=centres.shape)).astype(np.float32)


def test_each_cluster_is_suggested_once_the_largest_first():
    pool = clusters((30, 5, 20, 10))
    chosen = select(pool, np.ones(65), NO_LABELS, 4)
    assert np.searchsorted([30, 35, 55], chosen.order, side="right").tolist() == [0, 2, 3, 1]
    assert (np.diff(chosen.gain) < 0).all() and chosen.gain.sum() < 1


def test_the_order_is_that_of_all_gains_computed_anew_each_time():
    generator = np.random.default_rng(0)
    pool, weights, known = generator.normal(size=(60, 8)), generator.random(60), generator.normal(size=(9, 8))
    directions, labelled = selection._directions(pool, known)
    similarity = selection._similarity(directions, directions)
    covered, order = selection._similarity(directions, labelled).max(1), []
    for _ in range(20):
        gain = weights @ np.maximum(similarity - covered[:, None], 0)
        gain[order] = -1
        order.append(int(gain.argmax()))
        covered = np.maximum(covered, similarity[:, order[-1]])
    assert select(pool, weights, known, 20).order.tolist() == order


def test_what_is_labelled_or_certain_comes_last():
    pool, weights = clusters((30, 30, 30)), np.repeat([1.0, 1.0, 0.0], 30)
    chosen = select(pool, weights, pool[:3], 2).order
    assert 30 <= chosen[0] < 60
    assert select(pool, np.zeros(90), NO_LABELS, 2).gain.tolist() == [0, 0]


def test_every_image_is_suggested_if_there_are_no_more(monkeypatch):
    pool = clusters((3, 2))
    assert sorted(select(pool, np.ones(5), pool, 10).order) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(selection, "MAX_POOL", 2)  # the most uncertain ones
    assert sorted(select(pool, np.array([0, 1, 0, 1, 0.5]), NO_LABELS, 2).order) == [1, 3]


def test_uncertainty_is_the_root_of_one_minus_the_difference_of_the_two_most_probable_classes():
    assert np.allclose(uncertainty(np.array([[0.5, 0.5, 0], [0.1, 0.1, 0.8], [0, 1, 0]])), [1, 0.3**0.5, 0])
    assert uncertainty(np.ones((2, 1))).tolist() == [1, 1]


def test_the_nearest_of_any():
    assert nearest(np.eye(8)[:2], clusters((2, 3, 4), spread=0), 2).tolist() == [0, 1, 2, 3]
    assert nearest(np.eye(8)[:2], NO_LABELS, 3).tolist() == []


def test_near_duplicates_of_known_images_and_of_one_another_are_not_new():
    first, second, third = (comparable(drawn(seed)) for seed in range(3))
    assert max(first.shape) == 256
    candidates = [jpeg(first, 60), second, gain(second, 0.8), second.copy(), third]
    assert is_new(candidates, [first]).tolist() == [False, True, False, False, True]
    assert is_new([], [first]).tolist() == []


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six drawn images: 0 and 1 are the same, 2 is 0 as a bad JPEG."""
    (tmp_path / "photos").mkdir()
    images = [drawn(0), drawn(0), jpeg(drawn(0), 50), drawn(1), drawn(2), drawn(3)]
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), image[:, :, ::-1])
    return tmp_path / "photos"


def pool_of(photos: Path, features: np.ndarray) -> ImageFeatures:
    names = sorted(path.name for path in photos.iterdir())
    return ImageFeatures(names, features, np.full((len(names), 2), 0.5), ["ape", "bee"], str(photos))


def test_a_duplicate_is_replaced_by_the_next_best_image(photos, tiny_set):
    labelled = Labelled(tiny_set, np.arange(4), np.tile(np.eye(8, dtype=np.float32)[7], (4, 1)))
    config = configuration.load("quick", {"data.resize": "squash"})
    pool = pool_of(photos, np.eye(8, dtype=np.float32)[:6])
    pool.probabilities[3:] = [0.9, 0.1]  # the duplicates 0, 1 and 2 have unlike features and are the most uncertain
    chosen = choose(pool, labelled, config, 3)
    assert chosen.rows.tolist() == [0, 3, 4] and chosen.duplicates == 2 and (np.diff(chosen.gains) <= 0).all()
    assert choose(pool, labelled, config, 50).rows.tolist() == [0, 3, 4, 5]
    assert choose(pool, labelled, config, 1).rows.tolist() == [0]


def test_a_second_round_knows_the_images_of_the_first(tmp_path, tiny_set):
    """Images 0 to 4 are the same, and image 6 has nearly the features of image 0: neither 4 nor 6 is worth a label."""
    for number, image in enumerate([drawn(0)] * 5 + [drawn(1), drawn(2)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[:, :, ::-1])
    axes = np.eye(8, dtype=np.float32)
    pool = pool_of(tmp_path, np.concatenate([axes[:6], axes[:1] + 0.3 * axes[6]]))
    best = np.array([0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.65])
    pool.probabilities[:] = np.transpose([best, 1 - best])
    labelled = Labelled(tiny_set, np.arange(4), np.tile(axes[7], (4, 1)))
    chosen = choose(pool, labelled, configuration.load("quick", {"data.resize": "squash"}), 2)
    assert chosen.rows.tolist() == [0, 5] and chosen.duplicates == 4


@pytest.fixture(scope="module")
def run_on_set(tmp_path_factory) -> tuple[Run, Prepared]:
    root = tmp_path_factory.mktemp("suggest")
    prepared = tiny_prepared(root / "set", (12, 8, 4), size=80)
    return Run(
        untrained_run_folder(root / "run", prepared=prepared.root, data_fingerprint=prepared.fingerprint)
    ), prepared


def test_labelled_images_of_a_trained_base_are_computed(run_on_set):
    run, prepared = run_on_set
    rows, features = labelled_features(run, prepared)
    assert sorted(rows) == list(range(24)) and len(features) == 24
    train = animalclf.load(run.root, device="cpu")
    image = suggest.iter_images(prepared, [prepared.manifest["path"][rows[0]]])
    assert np.allclose(train.features([stored for _, stored in image]), features[:1], atol=1e-4)


def test_the_filled_table_is_the_larger_training_set(run_on_set, photos, tmp_path, monkeypatch, capsys):
    run, out = run_on_set[0], str(tmp_path / "out")
    pool = pool_of(photos, np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32))
    labelled = np.arange(24), np.random.default_rng(1).normal(size=(24, 8)).astype(np.float32)
    monkeypatch.setattr(suggest, "image_features", lambda run, data: pool)
    monkeypatch.setattr(suggest, "labelled_features", lambda run, prepared: labelled)
    score = SimpleNamespace(score=lambda features, probabilities: np.array([-1.0, 1.0]))
    monkeypatch.setattr(suggest, "read_scorer", lambda run: score)
    monkeypatch.setattr(suggest, "labelled_table", lambda run, labelled, root: pd.DataFrame(
        {"path": [f"{root}/4.png", f"{root}/5.png"], "label": ["ape", "bee"], "split": ["train", "val"]}
    ))  # fmt: skip
    assert main(["suggest", run.root, "--data", str(photos), "--count", "2", "--out", out, "--json"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert "write the classes into the column label of the first 2 lines" in " ".join(output.err.split())
    assert "show none of the classes: perhaps 1 image, with `no` in the column known" in " ".join(output.err.split())
    assert f"animalclf train --data {result['table']} --out NEW_RUN" in " ".join(output.err.split())
    table = pd.read_csv(result["table"], keep_default_na=False)
    assert table["known"].tolist() == ["no", "yes", "", ""] and result["unknown"] == 1
    assert table["reason"].str.endswith("; perhaps none of the classes").tolist() == [True, False, False, False]
    assert table["path"].tolist()[:2] == result["suggested"] and (table["label"][:2] == "").all()
    assert table["label"].tolist()[2:] == ["ape", "bee"] and table["reason"][0].startswith("unsure: ape 50 %, bee 50 %")
    page = Path(result["page"]).read_text()
    assert page.count("data:image/jpeg") == 2 and "default-src 'none'" in page
    config = configuration.load("quick").data
    with pytest.raises(UserError, match=r"2 rows have no label: line 2, 3; label these images, or remove the rows"):
        sources.find(result["table"], config)
    table.loc[:1, "label"] = "ape"
    table.drop_duplicates("path").to_csv(result["table"], index=False)
    files = sources.find(result["table"], config).files
    assert set(files["path"]) >= {"4.png", "5.png"} and set(files["split"]) <= {"", "train", "val"}
    with pytest.raises(UserError, match="labels that a new list would replace"):
        animalclf.suggest(run.root, photos, out=out)


def test_the_labelled_images_of_the_run_and_their_splits(run_on_set, tmp_path):
    run, prepared = run_on_set
    labelled = Labelled(prepared, np.arange(24), np.zeros((24, 8), np.float32))
    assert suggest.labelled_table(run, labelled, "/photos").empty  # `made by a test` is no folder
    labelled = replace(labelled, prepared=replace(prepared, info={**prepared.info, "source": str(tmp_path)}))
    table = suggest.labelled_table(run, labelled, "/photos")
    assert table["path"][0] == f"{tmp_path}/class0/0000.jpg" and set(table["split"]) == {"train", "val"}
    assert set(table["label"]) == set(TINY_CLASSES)
    assert suggest.labelled_table(run, labelled, "s3://bucket/photos").empty
    assert CONFIG.train.folds == 0


def test_data_that_cannot_be_used_is_refused(run_on_set, photos, tmp_path, monkeypatch):
    run, prepared = run_on_set
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no images found"):
        animalclf.suggest(run.root, tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        animalclf.suggest(run.root, tmp_path / "missing")
    with pytest.raises(UserError, match="is a prepared set of labelled images"):
        animalclf.suggest(run.root, prepared.root)
    with pytest.raises(UserError, match="count"):
        animalclf.suggest(run.root, photos, count=0)
    nothing = ImageFeatures([], NO_LABELS, np.empty((0, 2)), ["ape", "bee"], str(photos), unreadable={"a.jpg": "empty"})
    monkeypatch.setattr(suggest, "image_features", lambda run, data: nothing)
    with pytest.raises(UserError, match="none of its 1 image is readable"):
        animalclf.suggest(run.root, photos)

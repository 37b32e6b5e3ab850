import numpy as np
import pytest
from helpers import tiny_prepared

from animalclf import config as configuration
from animalclf.data.feed import MemoryFeed, Schedule, load_pictures

PASSES = [("train", 0), ("val", 0), ("train", 1), ("val", 1)]


def schedule_of(prepared, balance="none", batch_size=8):
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    return Schedule(rows, prepared.labels, batch_size, balance, configuration.Augment(), 32, 5)


def test_shards_give_back_what_was_written(tmp_path):
    prepared = tiny_prepared(tmp_path)
    pictures = load_pictures(prepared)
    everything = np.stack(pictures.views(np.arange(60)))
    assert everything.shape == (60, 40, 40, 3) and everything.dtype == np.uint8
    bright = [everything[prepared.labels == c].mean((0, 3)) for c in range(3)]
    assert bright[0][10, 10] > 120 > bright[0][30, 30] and bright[1][10, 30] > 120 and bright[2][30, 10] > 120


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_together_see_every_row_once(tmp_path, world):
    prepared = tiny_prepared(tmp_path)
    schedule, pictures = schedule_of(prepared), load_pictures(prepared)
    for phase in ("train", "val"):
        seen = [batch["index"] for rank in range(world) for batch in MemoryFeed(schedule, pictures, rank, world).batches(phase, 0)]
        assert np.array_equal(np.sort(np.concatenate(seen)), prepared.rows(phase))


def test_a_picture_looks_the_same_in_any_batch(tmp_path):
    prepared = tiny_prepared(tmp_path)
    schedule, pictures = schedule_of(prepared), load_pictures(prepared)
    index = prepared.rows("train")
    whole = schedule.make(pictures, "train", 3, index)
    part = schedule.make(pictures, "train", 3, index[[7, 2]])
    assert np.array_equal(part["image"], whole["image"][[7, 2]])
    assert not np.array_equal(schedule.make(pictures, "train", 4, index)["image"], whole["image"])


@pytest.mark.ray
@pytest.mark.parametrize("balance, world", [("none", 1), ("sampling", 2)])
def test_ray_data_gives_the_batches_of_the_plan(tmp_path, ray_local, balance, world, monkeypatch):
    from animalclf.data import stream

    monkeypatch.setattr(stream, "PICTURES_PER_TASK", 12)  # several tasks an epoch, several steps a task
    prepared = tiny_prepared(tmp_path)
    schedule, pictures = schedule_of(prepared, balance), load_pictures(prepared)
    store = stream.cache(prepared)
    for rank in range(world):
        streamed, direct = stream.RayFeed(schedule, store, rank, world, PASSES), MemoryFeed(schedule, pictures, rank, world)
        for phase, epoch in PASSES:
            ours, expected = list(streamed.batches(phase, epoch)), list(direct.batches(phase, epoch))
            assert len(ours) == len(expected) > 1
            for one, other in zip(ours, expected, strict=True):
                for name in ("image", "label", "index"):
                    assert np.array_equal(one[name], other[name]), name
                    assert one[name].dtype == other[name].dtype


@pytest.mark.ray
def test_more_ranks_than_validation_rows(tmp_path, ray_local):
    from animalclf.data import stream

    prepared = tiny_prepared(tmp_path, counts=(8, 4))
    schedule = schedule_of(prepared)
    assert len(prepared.rows("val")) == 3
    store = stream.cache(prepared)
    seen = [b["index"] for rank in range(5) for b in stream.RayFeed(schedule, store, rank, 5, [("val", 0)]).batches("val", 0)]
    assert np.array_equal(np.sort(np.concatenate(seen)), prepared.rows("val"))

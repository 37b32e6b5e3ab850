from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from helpers import tiny_prepared

from animalclf import config as configuration
from animalclf.data import ray_loader
from animalclf.data.disk_cache import LocalShards
from animalclf.data.loader import MemoryLoader, StoredImages, load_images, make_batch
from animalclf.data.sampler import SamplingPlan
from animalclf.data.shards import PixelFile
from animalclf.errors import UserError

PASSES = [("train", 0), ("val", 0), ("train", 1), ("val", 1)]


def plan_of(prepared, balance="none", batch_size=8):
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    return SamplingPlan(rows, prepared.labels, batch_size, balance, configuration.Augment(), 32, 5)


def test_a_shard_is_read_as_it_was_written(tmp_path):
    prepared = tiny_prepared(tmp_path)
    images = load_images(prepared)
    stacked = np.stack(images.views(np.arange(60)))
    assert stacked.shape == (60, 40, 40, 3) and stacked.dtype == np.uint8
    brightness = [stacked[prepared.labels == c].mean((0, 3)) for c in range(3)]
    assert brightness[0][10, 10] > 120 > brightness[0][30, 30]
    assert brightness[1][10, 30] > 120 and brightness[2][30, 10] > 120


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_together_see_every_row_once(tmp_path, world):
    prepared = tiny_prepared(tmp_path)
    plan, images = plan_of(prepared), load_images(prepared)
    for phase in ("train", "val"):
        indices = [
            batch["index"]
            for rank in range(world)
            for batch in MemoryLoader(plan, images, rank, world).batches(phase, 0)
        ]
        assert np.array_equal(np.sort(np.concatenate(indices)), prepared.rows(phase))


def test_an_image_is_augmented_the_same_in_any_batch(tmp_path):
    prepared = tiny_prepared(tmp_path)
    plan, images = plan_of(prepared), load_images(prepared)
    index = prepared.rows("train")
    complete = make_batch(plan, images, "train", 3, index)
    part = make_batch(plan, images, "train", 3, index[[7, 2]])
    assert np.array_equal(part["image"], complete["image"][[7, 2]])
    assert not np.array_equal(make_batch(plan, images, "train", 4, index)["image"], complete["image"])


def test_the_tasks_of_a_billion_epochs_are_made_one_after_another(tmp_path):
    plan = plan_of(tiny_prepared(tmp_path))
    passes = ((phase, epoch) for epoch in range(10**9) for phase in ("train", "val"))
    first = list(islice(ray_loader._tasks(plan, 0, 1, passes, 2**20), 100))
    assert [(first[0].phase, first[0].epoch), first[-1].epoch > 1] == [("train", 0), True]
    assert next(passes)[1] <= first[-1].epoch + 1


@pytest.mark.ray
@pytest.mark.parametrize("balance, world", [("none", 1), ("sampling", 2)])
def test_ray_data_gives_the_batches_of_the_plan(tmp_path, ray_local, balance, world, monkeypatch):
    from animalclf.data import ray_loader

    monkeypatch.setattr(
        ray_loader, "MAX_TASK_BYTES", 12 * 3 * 32 * 32
    )  # several tasks per epoch, several steps per task
    monkeypatch.setattr(ray_loader, "EXECUTION_TASKS", 5)  # several executions, which do not end where epochs do
    prepared = tiny_prepared(tmp_path)
    plan, images = plan_of(prepared, balance), load_images(prepared)
    cache = ray_loader.cache_images(prepared)
    for rank in range(world):
        streamed, direct = (
            ray_loader.RayLoader(plan, cache, rank, world, PASSES),
            MemoryLoader(plan, images, rank, world),
        )
        for phase, epoch in PASSES:
            batches, expected = list(streamed.batches(phase, epoch)), list(direct.batches(phase, epoch))
            assert len(batches) == len(expected) > 1
            for batch, expected_batch in zip(batches, expected, strict=True):
                for name in ("image", "label", "index"):
                    assert np.array_equal(batch[name], expected_batch[name]), name
                    assert batch[name].dtype == expected_batch[name].dtype


@pytest.mark.ray
def test_more_ranks_than_validation_rows(tmp_path, ray_local):
    from animalclf.data import ray_loader

    prepared = tiny_prepared(tmp_path, counts=(8, 4))
    plan = plan_of(prepared)
    assert len(prepared.rows("val")) == 3
    cache = ray_loader.cache_images(prepared)
    indices = [
        b["index"]
        for rank in range(5)
        for b in ray_loader.RayLoader(plan, cache, rank, 5, [("val", 0)]).batches("val", 0)
    ]
    assert np.array_equal(np.sort(np.concatenate(indices)), prepared.rows("val"))


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_images_from_disk_equal_those_from_memory(tmp_path, monkeypatch, store):
    monkeypatch.setenv("ANIMALCLF_CACHE", str(tmp_path / "cache"))
    prepared = tiny_prepared(tmp_path / "set", counts=(300, 200, 100), size=24, shard_rows=320, store=store)
    in_memory, index = load_images(prepared), np.random.default_rng(0).permutation(600)
    local = LocalShards(prepared)
    on_disk = StoredImages(local, in_memory.shard, in_memory.row)
    assert np.array_equal(np.stack(on_disk.views(index)), np.stack(in_memory.views(index)))
    assert (tmp_path / "cache").exists() == (store == "jpeg")  # decoded images on this disk are read in place
    if store == "jpeg":
        bytes_of = [
            sum(path.stat().st_size for path in folder.glob("*.parquet"))
            for folder in (tmp_path / "set", tmp_path / "cache" / "tiny-0")
        ]
        assert bytes_of[0] < bytes_of[1]
        monkeypatch.setattr("animalclf.data.disk_cache.read_shard", None)  # the cached shards are reused
        assert np.array_equal(LocalShards(prepared)[0][5], local[0][5])


def test_a_jpeg_set_nearly_equals_the_decoded_one(tmp_path):
    pixels, jpeg = (tiny_prepared(tmp_path / store, size=24, store=store) for store in ("pixels", "jpeg"))
    decoded, compressed = (
        np.stack(load_images(prepared).views(np.arange(60))).astype(int) for prepared in (pixels, jpeg)
    )
    assert 0 < np.abs(decoded - compressed).mean() < 4


def test_a_shard_cut_short_or_of_another_kind_is_named(tmp_path):
    prepared = tiny_prepared(tmp_path, shard_rows=60)
    path = prepared.shard_paths()[0]
    complete = PixelFile(path, 40)
    with pytest.raises(UserError, match=r"shard-00000\.parquet.*prepare the set again"):
        PixelFile(path, 41)
    with open(path, "r+b") as file:
        file.truncate(100_000)
    complete[0]
    with pytest.raises(OSError, match=r"shard-00000\.parquet.*ends within image 59"):
        complete[59]


@pytest.mark.ray
@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_ray_data_gives_the_same_batches_from_disk(tmp_path, ray_local, monkeypatch, store):
    from animalclf.data import ray_loader

    prepared = tiny_prepared(tmp_path / "set", store=store)
    # The workers of this Ray have their environment already and use the default cache folder: a fingerprint of this
    # test only.
    prepared = replace(prepared, info={**prepared.info, "fingerprint": f"{tmp_path.name}-{store}"})
    plan, images = plan_of(prepared, "sampling"), load_images(prepared)
    streamed, direct = (
        ray_loader.RayLoader(plan, ray_loader.cache_images(prepared, memory=False), 0, 1, PASSES),
        MemoryLoader(plan, images),
    )
    for phase, epoch in PASSES:
        for batch, expected in zip(streamed.batches(phase, epoch), direct.batches(phase, epoch), strict=True):
            assert all(np.array_equal(batch[name], expected[name]) for name in ("image", "label", "index"))


def test_balanced_sampling_loads_every_repeated_row(tmp_path):
    prepared = tiny_prepared(tmp_path, counts=(40, 4))
    plan, images = plan_of(prepared, "sampling"), load_images(prepared)
    drawn_rows = np.concatenate([batch["index"] for batch in MemoryLoader(plan, images).batches("train", 0)])
    rows = prepared.rows("train")
    counts = np.bincount(prepared.labels[drawn_rows])
    assert len(drawn_rows) == len(rows) and abs(counts[0] - counts[1]) <= 1 and np.bincount(drawn_rows).max() >= 4


def test_prefetched_batches_fit_the_smallest_store(monkeypatch):
    def prefetch_bytes(world, *stores):
        nodes = [
            {"Alive": True, "Resources": {"object_store_memory": float(store)} if store else {}} for store in stores
        ]
        monkeypatch.setattr(
            ray_loader.ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"object_store_memory": 1.0}}]
        )
        return ray_loader._prefetch_bytes(world)

    monkeypatch.delenv("ANIMALCLF_OWN_RAY", raising=False)
    assert prefetch_bytes(1, 10**9, 10**10) == prefetch_bytes(4, 10**9) == 2 * 10**8
    assert prefetch_bytes(1, 10**12) == ray_loader.MAX_PREFETCH_BYTES
    assert prefetch_bytes(1, 0, 10**9) == 2 * 10**8  # a node that joins or leaves
    assert prefetch_bytes(1, 0) == ray_loader.MAX_PREFETCH_BYTES
    monkeypatch.setenv("ANIMALCLF_OWN_RAY", "1")
    assert prefetch_bytes(4, 10**9) == 5 * 10**7  # the ranks of one machine share its store

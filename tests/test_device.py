"""The same augmented image from OpenCV in an input task and from torch on the training device. The device here is the
CPU."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import tiny_prepared

from animalclf import config as configuration
from animalclf.config import Augment
from animalclf.data import augment
from animalclf.data.augment import Samples, numpy_form, torch_form
from animalclf.data.augment.compose import ColourMap, colour_matrix
from animalclf.data.augment.operations.color_jitter import jitter_factors
from animalclf.data.augment.operations.erasing import erased_boxes
from animalclf.data.augment.operations.trivial_augment import CHOICES, draw
from animalclf.data.device_loader import DeviceLoader
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.sampler import SamplingPlan
from animalclf.training import worker
from animalclf.training.distributed import RankContext

STILL = Augment(rotation=0, shift=0, zoom=(1, 1), flip=False)
CPU = torch.device("cpu")
# Settings, and the largest and the mean difference of pixel values between the NumPy and the torch form.
SPECS = pytest.mark.parametrize(
    "spec, maximum, mean",
    [
        (Augment(), 2, 0.1),
        (replace(STILL, crop=(0.2, 0.9)), 2, 0.1),
        (replace(STILL, brightness=0.4, contrast=0.4, saturation=0.6), 3, 0.3),
        (replace(Augment(), crop=(0.3, 1), erase=0.7), 2, 0.1),
    ],
)


def photographs(count=48, size=72):
    """Smooth images with edges, uint8 (count, size, size, 3)."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 9, 9, 3), np.uint8)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in coarse])


def both(spec, stored=72, size=64):
    images, index = photographs(size=stored), np.arange(1000, 1048)
    numpy_images = augment.augment_batch(images, index, spec, 5, 3, size)
    torch_images = torch_form.augment_batch(torch.from_numpy(images), index, spec, 5, 3, size).numpy()
    assert numpy_images.shape == torch_images.shape == (48, size, size, 3) and torch_images.dtype == np.uint8
    assert not np.array_equal(numpy_images, augment.evaluation_view(images, size))
    return np.abs(numpy_images.astype(int) - torch_images)


@SPECS
def test_device_and_input_tasks_augment_alike(spec, maximum, mean):
    distance = both(spec)
    assert distance.max() <= maximum and distance.mean() < mean


def test_trivial_augment_differs_only_where_rounding_crosses_a_threshold():
    assert (both(replace(Augment(), trivial=True)) > 3).mean() < 0.002


@pytest.mark.parametrize("stored, size", [(72, 64), (64, 64), (100, 41)])
def test_the_evaluation_view_is_the_same(stored, size):
    images = photographs(8, stored)
    ours, theirs = (
        augment.evaluation_view(images, size),
        torch_form.evaluation_view(torch.from_numpy(images), size).numpy(),
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_crops_are_within_the_image_and_have_the_given_areas():
    affine = augment.compose(Samples(replace(STILL, crop=(0.25, 0.5)), 0, 0, np.arange(2000), 64), 64).warp
    area = affine[:, 0, 0] * affine[:, 1, 1]
    assert 0.25 - 1e-9 <= area.min() < 0.27 and 0.48 < area.max() <= 0.5 + 1e-9
    ratio = affine[:, 0, 0] / affine[:, 1, 1]
    assert ratio.min() >= 0.75 - 1e-9 and ratio.max() <= 4 / 3 + 1e-9 and ratio.min() < 0.8 and ratio.max() > 1.25
    corners = np.array([[-0.5, -0.5, 1], [63.5, 63.5, 1]])
    points = affine @ corners.T
    assert points.min() >= -0.5 - 1e-9 and points.max() <= 63.5 + 1e-9 and points.min() < -0.3 and points.max() > 63.3


def test_jitter_by_hand():
    images = np.full((1, 4, 4, 3), (200, 100, 50), np.uint8)
    draws = np.array([[0.75, 1.0, 0.0]])  # brightness 1 + 0.5 x 0.4, contrast 1.5, saturation 0.5
    spec = replace(STILL, brightness=0.4, contrast=0.5, saturation=0.5)
    numpy_form.apply_colour(images, ColourMap(colour_matrix(jitter_factors(spec, draws))))
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    expected = [1.2 * (1.5 * ((value + grey) / 2 - 128) + 128) for value in (200, 100, 50)]
    assert np.abs(images[0, 0, 0] - np.clip(expected, 0, 255)).max() <= 1


def test_erasing_has_the_given_fraction_of_images_and_areas():
    boxes = erased_boxes(0.3, np.random.default_rng(0).random((4000, 5)), 100)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert 0.27 < (area > 0).mean() < 0.33 and boxes.min() >= 0 and boxes.max() <= 100
    assert area[area > 0].min() > 150 and area.max() < 3400


def test_every_trivial_operation_occurs_and_only_one_at_a_time():
    spec, index = replace(STILL, trivial=True), np.arange(3000)
    choice, _ = draw(Samples(spec, 0, 0, index, 48))
    assert np.bincount(choice, minlength=len(CHOICES)).min() > 200
    images = np.repeat(photographs(1, 48), 3000, 0)
    changed = (augment.augment_batch(images, index, spec, 0, 0, 48) != images).any((1, 2, 3))
    assert not changed[choice == 0].any() and changed[choice != 0].mean() > 0.95


def test_a_set_in_device_memory_gives_the_batches_of_the_plan(tmp_path):
    prepared = tiny_prepared(tmp_path)
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    plan = SamplingPlan(rows, prepared.labels, 8, "none", configuration.Augment(), 32, 5)
    device_plan, images = replace(plan, augment_on_device=True), load_images(prepared)
    for rank in range(2):
        loader, expected = DeviceLoader(device_plan, images, CPU, rank, 2), MemoryLoader(plan, images, rank, 2)
        for batch, other in zip(loader.batches("train", 1), expected.batches("train", 1), strict=True):
            augmented = (
                torch_form.augment_batch(batch["image"], batch["index"], device_plan.augment, device_plan.seed, 1, 32)
                .numpy()
                .astype(int)
            )
            assert np.array_equal(batch["index"], other["index"]) and np.array_equal(batch["label"], other["label"])
            assert np.abs(augmented - other["image"]).mean() < 0.1
        for batch, other in zip(loader.batches("val", 1), expected.batches("val", 1), strict=True):
            assert np.abs(batch["image"].numpy().astype(int) - other["image"]).max() <= 1


@pytest.mark.parametrize(
    "world_size, refs, phase, by_tasks",
    [(1, ["shard"], "val", False), (1, ["shard"], "train", True), (2, ["shard"], "val", True), (1, [], "val", True)],
)
def test_an_only_cpu_worker_reads_what_is_not_augmented_itself(
    world_size, refs, phase, by_tasks, tiny_set, monkeypatch
):
    """Not images on disk (no `refs`), which input tasks read ahead."""
    monkeypatch.setattr(worker, "RayLoader", lambda *arguments: "input tasks")
    rows = {split: tiny_set.rows(split) for split in ("train", "val")}
    plan = SamplingPlan(rows, tiny_set.labels, 8, "none", STILL, 80, 5)
    cache = SimpleNamespace(refs=refs, images=lambda: load_images(tiny_set))
    loader = worker.RankLoaders(cache, 80 * 80 * 3, RankContext(0, world_size, CPU))(plan, [(phase, 0)])
    if by_tasks:
        assert loader == "input tasks"
    else:
        index = [batch["index"] for batch in loader.batches("val", 0)]
        assert np.array_equal(np.sort(np.concatenate(index)), rows["val"])

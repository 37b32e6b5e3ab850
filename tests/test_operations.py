"""Augmentation operations: one that is registered at run time is applied in both forms, in batches and in a
training."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers import tiny_prepared

from animalclf.cli import main
from animalclf.config import Augment
from animalclf.data.augment import OPERATIONS, Operation, Samples, augment_batch, compose, is_identity, torch_form
from animalclf.data.augment.operation import Stream
from animalclf.data.augment.operations.gaussian_blur import GaussianBlur
from animalclf.runs import Run

STILL = Augment(rotation=0, shift=0, zoom=(1, 1), flip=False)


class BoxBlur(Operation):
    """The mean over 1, 3, 5 or 7 pixels in x and y."""

    stream = Stream("boxblur", 1)

    def is_active(self, augment):
        return True

    def parameters(self, samples):
        return (samples.uniform(self.stream)[:, 0] * 4).astype(np.int64)

    def apply_numpy(self, images, parameters):
        return np.stack(
            [cv2.blur(image, (2 * radius + 1,) * 2) for image, radius in zip(images, parameters.tolist(), strict=True)]
        )

    def apply_torch(self, images, parameters):
        def blurred(image, radius):
            padded = torch.nn.functional.pad(image.permute(2, 0, 1)[None].float(), (radius,) * 4, mode="reflect")
            return torch.nn.functional.avg_pool2d(padded, 2 * radius + 1, 1)[0].permute(1, 2, 0).round().to(torch.uint8)

        return torch.stack([blurred(image, radius) for image, radius in zip(images, parameters.tolist(), strict=True)])


@pytest.fixture
def box_blur():
    OPERATIONS.register("x_test_blur")(BoxBlur)
    yield
    OPERATIONS.unregister("x_test_blur")


def smooth_images(count, size):
    coarse = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3), np.uint8)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in coarse])


def both_forms(augment, images, size):
    index = np.arange(500, 500 + len(images))
    from_numpy = augment_batch(images, index, augment, 5, 3, size)
    from_torch = torch_form.augment_batch(torch.from_numpy(images), index, augment, 5, 3, size).numpy()
    assert from_numpy.shape == from_torch.shape == (len(images), size, size, 3) and from_torch.dtype == np.uint8
    return from_numpy, from_torch


def test_a_registered_operation_is_applied_in_both_forms(box_blur):
    images = smooth_images(40, 64)
    assert not is_identity(STILL)
    from_numpy, from_torch = both_forms(STILL, images, 64)
    assert np.abs(from_numpy.astype(int) - from_torch).max() <= 1
    radius = BoxBlur().parameters(Samples(STILL, 5, 3, np.arange(500, 540), 64))
    changed = (from_numpy != images).any((1, 2, 3))
    assert np.array_equal(changed, radius > 0) and 20 < changed.sum() < 40


def test_a_registered_operation_is_applied_after_the_warp_and_the_colours(box_blur):
    images = smooth_images(40, 72)
    augment = replace(Augment(), brightness=0.3, erase=0.5)
    from_numpy, from_torch = both_forms(augment, images, 64)
    assert np.abs(from_numpy.astype(int) - from_torch).max() <= 3
    OPERATIONS.unregister("x_test_blur")
    try:
        expected, _ = both_forms(augment, images, 64)
    finally:
        OPERATIONS.register("x_test_blur")(BoxBlur)
    expected = BoxBlur().apply_numpy(expected, BoxBlur().parameters(Samples(augment, 5, 3, np.arange(500, 540), 64)))
    assert np.array_equal(from_numpy, expected)


def train_locally(data, out, on):
    settings = [
        "model.input_size=76",
        "train.epochs=1",
        "train.batch_size=16",
        "train.precision=fp32",
        "train.threads=1",
    ]
    settings += ["augment.rotation=0", "augment.shift=0", "augment.zoom=[1, 1]", "augment.flip=false"]
    flags = [word for setting in (*settings, f"augment.on={on}") for word in ("--set", setting)]
    assert (
        main(["train", "--recipe", "big_cnn", "--data", str(data), "--out", str(out), "--local", "--json", *flags]) == 0
    )
    return Run(str(out)).metrics()[0].train_loss


def test_a_training_applies_a_registered_operation(tmp_path, box_blur, capsys):
    prepared = tiny_prepared(tmp_path / "prepared", (12, 8, 6), size=76)
    blurred, on_device = (train_locally(prepared.root, tmp_path / on, on) for on in ("data", "device"))
    OPERATIONS.unregister("x_test_blur")
    try:
        plain = train_locally(prepared.root, tmp_path / "plain", "data")
    finally:
        OPERATIONS.register("x_test_blur")(BoxBlur)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == str(tmp_path / "plain")
    assert abs(blurred - on_device) < 0.005 * blurred
    assert abs(blurred - plain) > 0.02 * plain


@pytest.mark.parametrize(
    "stream, overlaps",
    [
        (Stream("blur", 1), True),
        (Stream("blur", 2, (1,)), True),  # another number of draws gives correlated numbers
        (Stream("colr", 8, (7,)), True),
        (Stream("colr", 8, (8,)), False),
        (Stream("unused", 1), False),
        (None, False),
    ],
)
def test_operations_cannot_share_random_numbers(stream, overlaps):
    OPERATIONS.names()  # the package's own operations are registered
    operation = type("Another", (BoxBlur,), {"stream": stream})
    if overlaps:
        with pytest.raises(ValueError, match=rf"and 'x_test_another' use the same random numbers.*'{stream.name}'"):
            OPERATIONS.register("x_test_another")(operation)
    else:
        OPERATIONS.register("x_test_another")(operation)
        OPERATIONS.unregister("x_test_another")
    assert "x_test_another" not in OPERATIONS


def test_stream_names_fit_into_the_seed():
    with pytest.raises(ValueError, match="'gaussianblur': at most 8 ASCII letters"):
        Stream("gaussianblur", 1)


def test_warps_of_operations_are_composed_in_their_order():
    class Shift(Operation):
        def is_active(self, augment):
            return True

        def warp(self, samples):
            return np.tile(np.array([[1.0, 0, 10], [0, 1, 0]]), (len(samples.index), 1, 1))

    OPERATIONS.register("x_test_shift")(Shift)
    try:
        warp = compose(Samples(STILL, 0, 0, np.arange(3), 32), 64).warp
    finally:
        OPERATIONS.unregister("x_test_shift")
    assert np.allclose(warp, [[2, 0, 20.5], [0, 2, 0.5]])  # ten pixels of the view are twenty stored ones


@pytest.mark.parametrize("augment", [replace(STILL, blur=0.5), replace(STILL, blur=3.0), replace(Augment(), blur=2.0)])
def test_gaussian_blur_is_the_same_in_both_forms(augment):
    from_numpy, from_torch = both_forms(augment, smooth_images(40, 64), 64)
    distance = np.abs(from_numpy.astype(int) - from_torch)
    assert distance.max() <= 2 and distance.mean() < 0.1


def test_gaussian_blur_by_hand():
    point = np.zeros((200, 41, 41, 3), np.uint8)
    point[:, 20, 20] = 255
    blurred = augment_batch(point, np.arange(200), replace(STILL, blur=2.0), 0, 0, 41)[..., 0] / 255
    sigma = 2 * Samples(STILL, 0, 0, np.arange(200), 41).uniform(GaussianBlur.stream)[:, 0]
    wide = sigma > 0.6  # below, the pixel's own extent counts
    assert np.allclose(blurred[wide, 20, 20], 1 / (2 * np.pi * sigma[wide] ** 2), atol=0.02)
    assert sigma.min() < 0.1 and sigma.max() > 1.9

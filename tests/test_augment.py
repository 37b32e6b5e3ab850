import numpy as np
import pytest

from animalclf.config import Augment
from animalclf.data import augment
from animalclf.data.augment import Samples, numpy_form
from animalclf.data.augment.operation import uniform

NONE = Augment(rotation=0, shift=0, zoom=(1, 1), flip=False)


def noise_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((1, size // 8, size // 8, 1), np.uint8))


def matrices(spec: Augment, seed: int, epoch: int, index: np.ndarray, stored: int, size: int) -> np.ndarray:
    return augment.compose(Samples(spec, seed, epoch, index, size), stored).warp


def test_random_numbers_depend_on_seed_epoch_index_and_nothing_else():
    index = np.array([5, 99, 1_000_000_007])
    base = uniform(1, 2, index, 6)
    assert np.array_equal(base[[2, 0]], uniform(1, 2, index[[2, 0]], 6))
    assert base.min() >= 0 and base.max() < 1
    for independent in (uniform(2, 2, index, 6), uniform(1, 3, index, 6)):
        assert not np.isclose(base, independent).any()
    many = uniform(0, 0, np.arange(20_000), 6)
    assert np.allclose(many.mean(0), 0.5, atol=0.01) and np.allclose(many.var(0), 1 / 12, atol=0.002)
    assert np.abs(np.corrcoef(many.T) - np.eye(6)).max() < 0.03


def test_matrices_stay_within_the_ranges_of_the_reference_notebook():
    spec = Augment()
    affine = matrices(spec, 0, 0, np.arange(5000), 128, 128)
    linear = affine[:, :, :2]
    zooms = np.linalg.norm(linear, axis=1)
    assert zooms.min() >= 0.6 - 1e-9 and zooms.max() <= 1.4 + 1e-9
    angles = np.rad2deg(np.arctan2(linear[:, 0, 1], linear[:, 1, 1]))
    assert np.abs(angles).max() <= 25 + 1e-6 and np.abs(angles).max() > 24
    flipped = np.linalg.det(linear) < 0
    assert 0.45 < flipped.mean() < 0.55
    centre_shift = linear @ np.array([63.5, 63.5]) + affine[:, :, 2] - 63.5
    assert np.linalg.norm(centre_shift, axis=1).max() <= np.hypot(0.2, 0.2) * 128 + 1e-6
    assert np.linalg.norm(centre_shift, axis=1).max() > 0.25 * 128


def test_no_operation_changes_nothing():
    images = noise_images(3, 64)
    assert augment.is_identity(NONE) and not augment.is_identity(Augment())
    assert np.array_equal(numpy_form.warp(images, matrices(NONE, 0, 0, np.arange(3), 64, 64), 64), images)


def test_flip_mirrors_exactly():
    images = noise_images(64, 64)
    index = np.arange(64)
    out = augment.augment_batch(images, index, Augment(rotation=0, shift=0, zoom=(1, 1), flip=True), 0, 0, 64)
    mirrored = [np.array_equal(out[i], images[i, :, ::-1]) for i in range(64)]
    unchanged = [np.array_equal(out[i], images[i]) for i in range(64)]
    assert all(a != b for a, b in zip(mirrored, unchanged, strict=True)) and 16 < sum(mirrored) < 48


def test_zoom_below_one_shows_less_of_the_image():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, 24:40, 24:40] = 255
    brightness = [
        augment.augment_batch(image, np.array([0]), Augment(0, 0, (z, z), False), 0, 0, 64).mean()
        for z in (0.6, 1.0, 1.4)
    ]
    assert brightness[0] > brightness[1] > brightness[2] > 0


def test_border_is_replicated():
    image = np.full((1, 32, 32, 3), 7, np.uint8)
    out = augment.augment_batch(image, np.array([3]), Augment(), 0, 0, 32)
    assert (out == 7).all()


@pytest.mark.parametrize("stored, size", [(144, 128), (64, 32)])
def test_training_and_evaluation_views_agree_where_nothing_is_augmented(stored, size):
    images = noise_images(4, stored)
    view = augment.evaluation_view(images, size).astype(int)
    warped = numpy_form.warp(images, matrices(NONE, 0, 0, np.arange(4), stored, size), size).astype(int)
    assert view.shape == (4, size, size, 3)
    assert np.abs(view - warped).mean() < 4  # area averaging against bilinear sampling: the same image, not shifted
    shifted = np.abs(view[:, :, 1:] - warped[:, :, :-1]).mean()
    assert np.abs(view - warped).mean() < shifted


def test_keras_composition_by_hand():
    """The matrix of one image from rotation, shift and zoom as Keras composes them (output to input, about the
    centre)."""
    spec = Augment(rotation=25, shift=0.2, zoom=(0.6, 1.4), flip=False)
    index = np.array([42])
    angle, shift_x, shift_y, zoom_x, zoom_y, _ = uniform(7, 3, index, 6)[0]
    theta = np.deg2rad(-25 + 50 * angle)
    rotation = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    shift = np.array([[1, 0, (-0.2 + 0.4 * shift_x) * 128], [0, 1, (-0.2 + 0.4 * shift_y) * 128], [0, 0, 1]])
    zoom = np.diag([0.6 + 0.8 * zoom_x, 0.6 + 0.8 * zoom_y, 1])
    to_centre = np.array([[1, 0, 63.5], [0, 1, 63.5], [0, 0, 1]])
    expected = to_centre @ rotation @ shift @ zoom @ np.linalg.inv(to_centre)
    assert np.allclose(matrices(spec, 7, 3, index, 128, 128)[0], expected[:2])

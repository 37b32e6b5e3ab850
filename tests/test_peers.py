"""benchmarks.peers: the libraries get the warp that they should, and ratios are those of one round."""

import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from benchmarks import peer_loaders
from benchmarks.peers import LIMIT, OURS, ratios


def test_the_warp_of_ffcv_is_opencvs(monkeypatch):
    monkeypatch.setattr(peer_loaders, "SIZE", 24)
    draws = np.array([0.7, -0.4, 0.9, -0.2, 0.5, -0.8], np.float32)
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8), (0, 0), 3)
    values = iter([*(draws[:3] * [peer_loaders.ANGLE, peer_loaders.ZOOM, peer_loaders.ZOOM] + [0, 1, 1]), *draws[4:]])
    monkeypatch.setattr(random, "uniform", lambda low, high: next(values) * (peer_loaders.SHIFT if high == 0.2 else 1))
    monkeypatch.setattr(random, "random", lambda: 0.5 + draws[3] / 2)
    expected = peer_loaders.random_warp(image)
    out = np.empty((24, 24, 3), np.uint8)
    peer_loaders.numba_warp(image, draws, np.radians(peer_loaders.ANGLE), peer_loaders.SHIFT, peer_loaders.ZOOM, out)
    assert np.abs(out.astype(int) - expected).max() <= 2
    assert expected.std() > 5


def test_a_batch_is_warped_image_by_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 144, 144, 3), np.uint8)
    random.seed(0)
    batch = peer_loaders.random_warps(images)
    random.seed(0)
    assert np.array_equal(batch, np.stack([peer_loaders.random_warp(image) for image in images]))


def test_a_ratio_is_of_one_round():
    speeds = {OURS: [10.0, 30.0], "MosaicML": [5.0, 10.0], LIMIT: [20.0, 30.0]}
    assert ratios(speeds, "MosaicML") == [2.0, 3.0]
    assert ratios(speeds, LIMIT) == [0.5, 1.0]


def test_cpu_seconds_are_those_of_the_children_too():
    before = peer_loaders.cpu_seconds()
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint()\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        running = peer_loaders.cpu_seconds() - before
        child.kill()
    assert running >= 0.45
    assert peer_loaders.cpu_seconds() - before >= running - 0.1  # ended children count


@pytest.mark.parametrize(("name", "package"), [("LitData", "litdata"), ("tf.data-warp", "tensorflow")])
def test_a_library_that_is_not_installed_has_its_own_exit_status(name, package, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    blocked = f"import sys; sys.modules[{package!r}] = None; sys.argv = sys.argv[1:]; "
    code = blocked + "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [peer_loaders.__file__, name, str(tmp_path / "images.npy"), "1", "1", "1"]
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
    assert process.returncode == peer_loaders.NOT_INSTALLED


def test_s3_is_for_the_libraries_that_read_buckets():
    command = [sys.executable, "-m", "benchmarks.peers", "--s3", "--peers", "FFCV"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert "not FFCV" in process.stderr

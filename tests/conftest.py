"""Fixtures shared by all tests: a local Ray, the real images if the environment names them, and a tiny run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from helpers import tiny_prepared
from hypothesis import HealthCheck, settings
from run_folders import untrained_run_folder

from animalclf.data.prepared_set import Prepared

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a test must not write a token into the user's home
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads for tiny networks mostly wait for each other

# No deadline, because the machine may be busy. `make test-long` chooses the profile long.
CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=CHECKS)
settings.register_profile("long", max_examples=10_000, deadline=None, suppress_health_check=CHECKS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray with 4 logical CPUs for the whole test session."""
    import ray

    from animalclf.cluster import ENVIRONMENT, start_local

    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():  # as `ensure_ray` does; without it each training has a process more
            environment.setenv(name, value)
        start_local(4, object_store_memory=512 * 2**20)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def sample_data() -> str:
    """The folder of real images and VGG16 weights; skips if ANIMALCLF_SAMPLE_DATA does not name it."""
    folder = os.environ.get("ANIMALCLF_SAMPLE_DATA", "")
    if not os.path.isdir(folder):
        pytest.skip("ANIMALCLF_SAMPLE_DATA does not name the folder of real images")
    return folder


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A prepared set of 24 images of three classes, stored at 80 px."""
    return tiny_prepared(tmp_path_factory.mktemp("tiny_set"), (12, 8, 4), size=80)


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory: pytest.TempPathFactory, tiny_set: Prepared) -> str:
    """The folder of a run on `tiny_set`, with an untrained model."""
    root = tmp_path_factory.mktemp("untrained_run")
    return untrained_run_folder(root, prepared=tiny_set.root, data_fingerprint=tiny_set.fingerprint)

"""Fixtures shared by all tests: a local Ray, and the real images where the environment names them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a test must not write a token into the user's home
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray with 4 logical CPUs for the whole test session."""
    import ray

    from animalclf.cluster import start_local

    start_local(4, object_store_memory=512 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def sample_data() -> str:
    """The folder of real images and VGG16 weights; skips where ANIMALCLF_SAMPLE_DATA does not name it."""
    folder = os.environ.get("ANIMALCLF_SAMPLE_DATA", "")
    if not os.path.isdir(folder):
        pytest.skip("ANIMALCLF_SAMPLE_DATA does not name the folder of real images")
    return folder

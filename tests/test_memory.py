"""Freed memory stays with the process, in the thread in which Ray Train trains too."""

import os
import subprocess
import sys

import pytest

from animalclf.utils.process_variables import PROCESS_VARIABLES, process_variables

FAULTS = """
import resource, threading
import numpy as np
from animalclf.utils.malloc import keep_freed_memory

def work():
    keep_freed_memory()
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(100_000_000, np.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[0], faults[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_large_array_takes_no_new_pages_the_third_time():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=os.environ | PROCESS_VARIABLES, capture_output=True, text=True, check=True
    )
    first, third = map(int, done.stdout.split())
    assert first > 100 and third < first / 10  # of about 24,000 pages, fewer if the kernel gives large ones


@pytest.mark.parametrize("chosen", ["", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_how_threads_wait_is_left_to_a_user_who_has_chosen(monkeypatch, chosen):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(chosen, "0")
    assert ("GOMP_SPINCOUNT" in process_variables()) is not bool(chosen)
    assert process_variables()["MALLOC_ARENA_MAX"] == "1"

"""Environment variables of the processes that train and classify, which are read when a process starts."""

from __future__ import annotations

import os
from typing import Any

PROCESS_VARIABLES = {
    # glibc: with more arenas, threads other than the first (Ray Train trains in one) map every allocation above 64 MB
    # again, regardless of mallopt (see malloc.py).
    "MALLOC_ARENA_MAX": "1",
    # libgomp: how often a thread looks for work before it sleeps; the default is 300,000 times
    # (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). Meanwhile it keeps its core from the thread that
    # it waits for, if another program takes the other core (python -m benchmarks.busy).
    "GOMP_SPINCOUNT": "5000",
}
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # how threads wait; a user who sets one of them has chosen


def process_variables() -> dict[str, str]:
    """PROCESS_VARIABLES, without GOMP_SPINCOUNT if the user has set how threads wait."""
    chosen = not os.environ.keys().isdisjoint(WAITING)
    return {name: value for name, value in PROCESS_VARIABLES.items() if not (chosen and name in WAITING)}


def runtime_env() -> dict[str, Any]:
    """Ray's `runtime_env` of a training worker. Empty in a cluster that cluster.yaml or `ensure_ray` started: it has
    these variables in its environment, and with a runtime_env a worker starts later."""
    variables = process_variables()
    return {} if os.environ.items() >= variables.items() else {"env_vars": variables}

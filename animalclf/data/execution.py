"""How Ray Data executes here: with no word on the screen, and on a cluster of fixed size at full speed from its first second.

Ray Data asks an actor, which all programs of a cluster share, how much of the cluster it may use. It takes seconds to start; until it answers one
task runs at a time, the first batch of an epoch comes late, and on two cores it takes what the first tasks need. It is there to make clusters grow.
Where that cannot be, all that there is may be used at once; Ray's scheduler takes tasks of several executions in turn. (A training that finds no
CPU free waits for the end of a `prepare` beside it.)

Written against Ray 2.60, which pyproject.toml asks for.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.data
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor, streaming_executor_state
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.stats import _StatsManager

from animalclf.cluster import FIXED, OWN, quiet


def data_context() -> ray.data.DataContext:
    """This process's settings of Ray Data, as every execution here wants them. A block stays whole, however large, and may take its time; its task
    does not look once a second, in a thread, how much memory it has."""
    _patch()
    quiet()  # importing ray.data set its logger up anew
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None
    context.memory_usage_poll_interval_s = None
    context.execution_no_progress_timeout_s = -1
    return context


@functools.cache
def _patch() -> None:
    """Everywhere: the next task as soon as one ends. On a cluster of fixed size: all of it at once. In a Ray of our own: no statistics for a
    dashboard; they are a process more."""

    def unless(variable: str, original: Callable[..., Any], instead: Callable[[], Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: instead() if os.environ.get(variable) else original(*arguments, **named)

    streaming_executor_state.ray = _AtTheFirst()
    streaming_executor.create_cluster_autoscaler = unless(FIXED, streaming_executor.create_cluster_autoscaler, _FixedSize)
    for name in ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics"):
        setattr(_StatsManager, name, staticmethod(unless(OWN, getattr(_StatsManager, name), lambda: None)))


class _AtTheFirst(threading.local):
    """`ray` as Ray Data's scheduling loop has it, with a `wait` that is over when a task has something. Ray Data waits until all of them have, or for
    a tenth of a second, and only then gives out the next task: with few tasks a core, a sixth of the cores' time.

    What a task has may stay where it is, while finished blocks wait to be taken; then the looks become rarer again, up to ten a second.
    """

    def __init__(self) -> None:
        self.seen: set[Any] = set()  # which had something at the last look
        self.pause_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def wait(self, tasks: list[Any], *, num_returns: int, timeout: float, fetch_local: bool) -> tuple[list[Any], list[Any]]:
        """As `ray.wait`, but for what was said."""
        now = functools.partial(ray.wait, tasks, num_returns=num_returns, timeout=0, fetch_local=fetch_local)
        ready, rest = now()
        left = bool(ready) and self.seen.issuperset(ready)
        self.pause_s = min(max(2 * self.pause_s, 0.001), timeout) if left else 0.0
        if left and not rest:
            time.sleep(self.pause_s)
        elif left or not ready:
            ray.wait(tasks, num_returns=len(ready) + 1, timeout=self.pause_s or timeout, fetch_local=fetch_local)
            ready, rest = now()
        self.seen = set(ready)
        return ready, rest


class _FixedSize(ClusterAutoscaler):
    """A cluster that does not grow by itself; nodes may still come and go."""

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> ExecutionResources:
        return ExecutionResources.from_resource_dict(ray.cluster_resources())

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
from collections.abc import Callable
from typing import Any

import ray
import ray.data
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor, streaming_executor_state
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.stats import _StatsManager

from animalclf.cluster import FIXED, OWN, quiet


def data_context(*, wait_s: float = 0.1) -> ray.data.DataContext:
    """This process's settings of Ray Data, as every execution here wants them. A block stays whole, however large, and may take its time.

    Ray Data looks every `wait_s` seconds, or when all its tasks are at an end, whether one is, and then gives out the next. With few tasks a core a
    CPU is without work meanwhile; but each look takes a millisecond or more of this process.
    """
    _patch()
    quiet()  # importing ray.data set its logger up anew
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None
    context.execution_no_progress_timeout_s = -1
    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = wait_s
    return context


@functools.cache
def _patch() -> None:
    """On a cluster of fixed size: all of it at once. In a Ray of our own: no statistics for a dashboard; they are a process more."""

    def unless(variable: str, original: Callable[..., Any], instead: Callable[[], Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: instead() if os.environ.get(variable) else original(*arguments, **named)

    streaming_executor.create_cluster_autoscaler = unless(FIXED, streaming_executor.create_cluster_autoscaler, _FixedSize)
    for name in ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics"):
        setattr(_StatsManager, name, staticmethod(unless(OWN, getattr(_StatsManager, name), lambda: None)))


class _FixedSize(ClusterAutoscaler):
    """A cluster that does not grow by itself; nodes may still come and go."""

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> ExecutionResources:
        return ExecutionResources.from_resource_dict(ray.cluster_resources())

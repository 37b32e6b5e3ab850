"""Ray Train's worker group of one worker, without the actor that synchronises the reports of all ranks."""

from __future__ import annotations

import functools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from animalclf.raycompat.patches import patch

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.worker_group import WorkerGroup

_starting = threading.local()  # .single: whether this thread starts a group of one worker


class SingleRank:
    """For a single rank, in place of the handle of the actor."""

    class _Broadcast:
        def remote(self, *, data: Any, **_: Any) -> Any:
            import ray

            return ray.put(data)

    broadcast_from_rank_zero = _Broadcast()


@functools.cache
def _install() -> None:
    """Groups that start while `_starting.single` is set get a SingleRank, which needs no end."""
    from ray.train.v2._internal.execution.worker_group import state, worker_group

    actor, end = worker_group.SynchronizationActor, state._shutdown_sync_actor
    without_actor = SimpleNamespace(remote=lambda **_: SingleRank())

    def options(**values: Any) -> Any:
        return without_actor if getattr(_starting, "single", False) else actor.options(**values)

    worker_group.SynchronizationActor = SimpleNamespace(options=options)
    state._shutdown_sync_actor = lambda sync_actor: None if isinstance(sync_actor, SingleRank) else end(sync_actor)


@patch(
    ("2.56", "2.58", "2.60"),
    {
        "ray.train.v2._internal.execution.worker_group.state:_shutdown_sync_actor": ("sync_actor",),
        "ray.train.v2._internal.execution.worker_group.worker_group:SynchronizationActor.options": None,
        "ray.train.v2._internal.execution.worker_group:WorkerGroup._start_impl": ("self", "worker_group_state_builder"),
    },
)
def skip_synchronization_actor(group: type[WorkerGroup]) -> type[WorkerGroup]:
    """`group` without the actor if it has one worker. The actor is one process more, which imports Ray Train.

    Earns 1 s of CPU time (`python -m benchmarks.stock_ray --only skip_synchronization_actor`).
    """
    _install()

    class SingleRankGroup(group):
        def _start_impl(self, worker_group_state_builder: Any) -> None:
            _starting.single = self._worker_group_context.num_workers == 1
            try:
                super()._start_impl(worker_group_state_builder)
            finally:
                _starting.single = False

    return SingleRankGroup

"""Ray Data's executor in a local Ray: at full speed from the first second.

Ray Data asks an actor, which all programs of a cluster share, how much of the cluster it may use. The actor exists for
autoscaling and takes seconds to start; until it answers, one task runs at a time and the first batch is late.
A local Ray does not scale, so Ray Data may use all resources at once; Ray's scheduler alternates between executions.
"""

from __future__ import annotations

import functools
import uuid

from animalclf.raycompat.patches import patch

VERSIONS = ("2.56", "2.58", "2.60")
WAIT_SECONDS = 0.02


@functools.cache
def apply() -> None:
    """Apply the patches of this module, once and for the rest of this process."""
    schedule_tasks_sooner()
    skip_autoscaling_actor()
    skip_statistics_actor()
    skip_location_actor()


@patch(VERSIONS, {"ray.data._internal.execution.streaming_executor_state:WAIT_FOR_TASK_COMPLETION_TIMEOUT_S": None})
def schedule_tasks_sooner() -> None:
    """Start the next task after 0.02 s. Ray Data waits until all running tasks have a result, or 0.1 s.

    Earns 8 % of the images/s (`python -m benchmarks.input --no-naive`, with and without
    ANIMALCLF_STOCK_RAY=schedule_tasks_sooner).
    """
    from ray.data._internal.execution import streaming_executor_state

    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = WAIT_SECONDS


@patch(
    VERSIONS,
    {
        "ray.data._internal.execution.streaming_executor:create_cluster_autoscaler": (
            "topology",
            "resource_manager",
            "data_context",
            "execution_id",
        ),
        "ray.data._internal.cluster_autoscaler:ClusterAutoscaler.try_trigger_scaling": ("self",),
        "ray.data._internal.cluster_autoscaler:ClusterAutoscaler.on_executor_shutdown": ("self",),
        "ray.data._internal.cluster_autoscaler:ClusterAutoscaler.get_total_resources": ("self",),
        "ray.data._internal.execution.interfaces.execution_options:ExecutionResources.from_resource_dict": (
            "resource_dict",
        ),
    },
)
def skip_autoscaling_actor() -> None:
    """No actor for autoscaling, whose process imports Ray Data while the first tasks wait.

    Earns 1.5 s of CPU time before the first batches (`python -m benchmarks.stock_ray --only skip_autoscaling_actor`),
    and, by the queue at the workers, 12 % of the images/s (`python -m benchmarks.input --no-naive`, with and without
    ANIMALCLF_STOCK_RAY=skip_autoscaling_actor).
    """
    import ray
    from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
    from ray.data._internal.execution import streaming_executor
    from ray.data._internal.execution.interfaces.execution_options import ExecutionResources

    class FixedSize(ClusterAutoscaler):
        """Of a cluster without autoscaling."""

        def try_trigger_scaling(self) -> None:
            pass

        def on_executor_shutdown(self) -> None:
            pass

        def get_total_resources(self) -> ExecutionResources:
            # Twice the CPUs: each worker has a next task in its queue, and is not idle until the next scheduling round.
            resources = ray.cluster_resources()
            return ExecutionResources.from_resource_dict(resources | {"CPU": 2 * resources.get("CPU", 0)})

    streaming_executor.create_cluster_autoscaler = lambda *arguments, **keywords: FixedSize()


@patch(
    VERSIONS,
    {
        "ray.data._internal.stats:_StatsManager.register_dataset_to_stats_actor": None,
        "ray.data._internal.stats:_StatsManager.update_execution_metrics": None,
        "ray.data._internal.stats:_StatsManager.update_iteration_metrics": None,
        "ray.data._internal.stats:_StatsManager.gen_dataset_id_from_stats_actor": (),
    },
)
def skip_statistics_actor() -> None:
    """No actor that collects statistics for a dashboard.

    Earns 1.5 s of CPU time of `prepare` (`python -m benchmarks.stock_ray --only skip_statistics_actor`).
    """
    from ray.data._internal.stats import _StatsManager

    for name in ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics"):
        setattr(_StatsManager, name, staticmethod(lambda *arguments, **keywords: None))
    # Ray's own fallback if the actor does not answer.
    _StatsManager.gen_dataset_id_from_stats_actor = staticmethod(lambda: uuid.uuid4().hex)


class _Locations:
    """In place of the actor that stores where the actors of an execution are. Pickled into their constructors."""

    @property
    def update_actor_location(self) -> _Locations:
        return self

    def remote(self, *_: object) -> None:
        """As an actor's method."""


@patch(
    ("2.60",),
    {
        "ray.data._internal.execution.operators.actor_pool_map_operator:get_or_create_actor_location_tracker": (),
        "ray.data._internal.execution.operators.actor_pool_map_operator:get_actor_locations": ("logical_actor_ids",),
        "ray.data._internal.execution.operators.actor_pool_map_operator:_MapWorker.__init__": (
            "self",
            "ctx",
            "src_fn_name",
            "map_transformer",
            "logical_actor_id",
            "actor_location_tracker",
        ),
    },
)
def skip_location_actor() -> None:
    """No actor that stores on which node each replica of a model is. A local Ray has one node, and Ray Data uses the
    node that a replica names when it is ready where the actor knows none.

    Earns 0.6 s of CPU time of `predict` (`python -m benchmarks.predict --run RUN --repeat 2`, with and without
    ANIMALCLF_STOCK_RAY=skip_location_actor).
    """
    from ray.data._internal.execution.operators import actor_pool_map_operator

    actor_pool_map_operator.get_or_create_actor_location_tracker = _Locations
    actor_pool_map_operator.get_actor_locations = lambda logical_actor_ids: {}

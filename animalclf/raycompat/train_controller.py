"""Ray Train's TorchTrainer with a faster start.

Ray starts six processes besides the workers. Each imports Ray Data, Ray Train and mostly PyTorch, which takes half of
the time to the first step on two cores. Here the controller runs in the process that calls `fit`, and three actors are
not started: the one that splits Ray datasets (our workers plan their batches themselves), the one that removes the
placement group of a dead controller, and the one for autoscaling.
"""

from __future__ import annotations

import asyncio
import logging.config
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from animalclf.raycompat.patches import patch
from animalclf.raycompat.single_rank import skip_synchronization_actor

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

VERSIONS = ("2.56", "2.58", "2.60")
STRUCTURED_LOGGING = "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING"


@contextmanager
def _no_current_actor() -> Iterator[None]:
    """Hide the current actor. Ray Train sends it to its workers as the controller, which is no actor here."""
    from ray.runtime_context import RuntimeContext

    current_actor = RuntimeContext.current_actor
    RuntimeContext.current_actor = None
    try:
        yield
    finally:
        RuntimeContext.current_actor = current_actor


@patch(
    VERSIONS,
    {
        "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._create_default_callbacks": ("self",),
        "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller": (
            "self",
            "controller_init_kwargs",
        ),
        "ray.train.v2._internal.callbacks:DatasetsCallback": ("train_run_context", "datasets"),
        "ray.train.v2._internal.callbacks.placement_group_callback:PlacementGroupCleanerCallback": None,
        "ray.train.v2._internal.execution.controller:TrainController.worker_group_cls": None,
        "ray.train.v2._internal.execution.controller:TrainController.run": ("self",),
        "ray.train.v2._internal.execution.controller:TrainController.get_result": ("self",),
        "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy.after_controller_start": (
            "self",
            "train_run_context",
        ),
        "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._maybe_send_resource_request": ("self",),
        "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._cancel_resource_request": ("self",),
        "ray.train.v2._internal.execution.worker_group:WorkerGroup._get_worker_runtime_env": ("custom_runtime_env",),
        "ray.train.v2._internal.execution.worker_group:WorkerGroup._init_train_context_on_workers": (
            "self",
            "workers",
            "sync_actor",
            "train_context_args",
        ),
        "ray.train.v2._internal.logging:LoggingManager._get_controller_logger_config_dict": ("context",),
        "ray.runtime_context:RuntimeContext.current_actor": None,
    },
)
def in_process_trainer() -> type[DataParallelTrainer]:
    """The base class of TorchTrainer, which needs no PyTorch in this process, without Ray's datasets and checkpoints,
    whose controller runs in this process. `fit` may run in any thread.

    Earns 7 s of the start of a training on two cores (`python -m benchmarks.stock_ray --only in_process_trainer`).
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.logging import LoggingManager
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class WithoutAutoscaling(FixedScalingPolicy):
        """A fixed number of workers: no actor that requests nodes from the autoscaler."""

        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

        def _cancel_resource_request(self) -> None:
            pass

    class Group(WorkerGroup):
        @staticmethod
        def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, object]:
            """The driver's environment, without variables for Ray's controller: Ray reuses processes of the same
            environment only."""
            return dict(custom_runtime_env)

        def _init_train_context_on_workers(self, *arguments: Any, **keywords: Any) -> None:
            with _no_current_actor():
                super()._init_train_context_on_workers(*arguments, **keywords)

    class Controller(TrainController):
        worker_group_cls = skip_synchronization_actor(Group) or Group

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            unused = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            os.environ[STRUCTURED_LOGGING] = "0"  # Ray's configuration also logs to the console
            log_config = LoggingManager._get_controller_logger_config_dict(self.train_run_context)
            log_config["loggers"]["ray.train"]["handlers"].remove("console")
            logging.config.dictConfig(log_config)
            if isinstance(settings["scaling_policy"], FixedScalingPolicy):
                settings["scaling_policy"] = WithoutAutoscaling(settings["scaling_policy"].scaling_config)
            controller = Controller(**settings)
            asyncio.run(controller.run())
            return controller.get_result()

    return Trainer

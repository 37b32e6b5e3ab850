"""Ray Train's TorchTrainer, started sooner.

Ray starts six processes beside the workers, each of which imports Ray Data, Ray Train and mostly PyTorch; on two cores they were half the wait for
the first step. Here the controller runs in the process that calls `fit`, and those that have nothing to do are not started: the one that hands
out Ray datasets (our workers plan their batches themselves), the one that removes the placement of a controller that died, and the one that makes
clusters grow.
"""

from __future__ import annotations

import asyncio
import logging.config
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from animalclf.raycompat.patches import patch

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

VERSIONS = ("2.56", "2.58", "2.60")
STRUCTURED_LOGGING = "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING"


@contextmanager
def _no_current_actor() -> Iterator[None]:
    """Ray Train hands its workers the actor that the controller runs in, to ask it for checkpoints of Ray's; here there is none."""
    from ray.runtime_context import RuntimeContext

    theirs = RuntimeContext.current_actor
    RuntimeContext.current_actor = None
    try:
        yield
    finally:
        RuntimeContext.current_actor = theirs


@patch(
    VERSIONS,
    {
        "ray.train.torch:TorchTrainer._create_default_callbacks": ("self",),
        "ray.train.torch:TorchTrainer._initialize_and_run_controller": ("self", "controller_init_kwargs"),
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
def trainer_class() -> type[TorchTrainer]:
    """A TorchTrainer for trainings without datasets and checkpoints of Ray's, whose controller runs in this process. `fit` may run in any
    thread.

    Earns 7 s of the start of a training on two cores (`python -m benchmarks.stock_ray --only trainer_class`).
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.logging import LoggingManager

    class Fixed(FixedScalingPolicy):
        """So many workers on a cluster that does not grow: no actor has to be started, waited for, and told of them."""

        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

        def _cancel_resource_request(self) -> None:
            pass

    class Group(WorkerGroup):
        @staticmethod
        def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
            """The driver's own, without variables for Ray's controller: processes of another environment could not be used again."""
            return dict(custom_runtime_env)

        def _init_train_context_on_workers(self, *arguments: Any, **named: Any) -> None:
            with _no_current_actor():
                super()._init_train_context_on_workers(*arguments, **named)

    class Controller(TrainController):
        worker_group_cls = Group

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            not_needed = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [
                callback for callback in super()._create_default_callbacks() if not isinstance(callback, not_needed)
            ]

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            os.environ[STRUCTURED_LOGGING] = "0"  # its own would write to the screen too
            logs = LoggingManager._get_controller_logger_config_dict(self.train_run_context)
            logs["loggers"]["ray.train"]["handlers"].remove("console")
            logging.config.dictConfig(logs)
            if isinstance(settings["scaling_policy"], FixedScalingPolicy):
                settings["scaling_policy"] = Fixed(settings["scaling_policy"].scaling_config)
            controller = Controller(**settings)
            asyncio.run(controller.run())
            return controller.get_result()

    return Trainer

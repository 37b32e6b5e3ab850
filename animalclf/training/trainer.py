"""Ray Train's TorchTrainer, started sooner, and stopped in order.

Ray starts six processes beside the workers, each of which imports Ray Data, Ray Train and mostly PyTorch; on two cores they were half the wait for
the first step. Four of them do nothing here: the one that hands out Ray datasets (our workers plan their batches themselves), the one that removes
the placement of a controller that died (it needs the dashboard, which a local Ray does not have), the one that watches for warnings of spot machines
(a machine taken back is a machine lost), and, on a cluster of fixed size, the one that makes clusters grow. The controller itself runs in the
process that calls `fit`.

Written against Ray 2.60, which pyproject.toml asks for.
"""

from __future__ import annotations

import asyncio
import logging.config
import os
import threading
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR, ENABLE_PREEMPTION_WATCHER_ENV_VAR
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import AbortedState
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.logging import LoggingManager

from animalclf.cluster import FIXED

NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)


class Stopped(Exception):
    """The training was ended by its switch."""


@dataclass(frozen=True)
class Switch:
    """Ends a training from another thread: `stopping.set()`, then `ended.wait()`; then no worker is left, and their place is given back. Where
    workers are just being started, that comes first."""

    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class Trainer(TorchTrainer):
    """As TorchTrainer, without datasets and checkpoints of Ray's. `fit` may run in any thread; where the switch is used, it returns a Result whose
    `return_value` is None."""

    def __init__(self, switch: Switch, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.switch = switch

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, NOT_NEEDED)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
        os.environ[ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR] = "0"  # its own would write to the screen too
        logs = LoggingManager._get_controller_logger_config_dict(self.train_run_context)
        logs["loggers"]["ray.train"]["handlers"].remove("console")
        logging.config.dictConfig(logs)
        if isinstance(settings["scaling_policy"], FixedScalingPolicy) and os.environ.get(FIXED):
            settings["scaling_policy"] = _Fixed(settings["scaling_policy"].scaling_config)
        controller = _Controller(self.switch, **settings)
        asyncio.run(controller.run())
        return controller.get_result()


class _Fixed(FixedScalingPolicy):
    """So many workers on a cluster of fixed size (see data/execution.py): no actor has to be started, waited for, and told of them."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class _Group(WorkerGroup):
    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        """The driver's own, without variables for Ray's controller: processes of another environment could not be used again."""
        return dict(custom_runtime_env)

    def _init_train_context_on_workers(self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]) -> None:
        """Ray's own, but for the controller's actor, which there is not; workers need it to ask for checkpoints of Ray's."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[number] for name, values in train_context_args.items()},
                )
                for number, worker in enumerate(workers)
            ]
        )
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _Group

    def __init__(self, switch: Switch, **settings: Any) -> None:
        self.switch = switch
        super().__init__(**settings)

    async def _run_control_loop_iteration(self) -> None:
        if not self.switch.stopping.is_set():
            await super()._run_control_loop_iteration()
            return
        self._controller_callback_manager.invoke_best_effort("before_controller_abort")
        if self._worker_group:
            self._worker_group.abort()
        self._set_state(AbortedState())

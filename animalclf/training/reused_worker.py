"""A single training worker whose process stays for the next training of this process: the trials of a comparison start
no processes, and import nothing.

The worker is a plain actor, because Ray Train starts new processes for each training. A worker that dies is replaced as
Ray Train does it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ray

from animalclf.errors import UserError
from animalclf.rows import TrainingResult
from animalclf.training.progress import open_mailbox
from animalclf.training.stop import Stopped, end_workers
from animalclf.training.task import Task
from animalclf.utils.process_variables import runtime_env

START_SECONDS = 1800.0  # until a worker has room: the cluster may have to start or replace machines first
ANSWER_SECONDS = 1.0  # of a worker that does not start any more
_idle: Any = None  # actor handle of the worker of the last training
_mailbox: Any = None  # actor handle of its mailbox


class TrainingWorker:
    """An actor that trains."""

    def import_all(self) -> None:
        """Import what a training needs, which takes seconds."""
        import animalclf.training.worker  # noqa: F401

    def ready(self) -> None:
        """Returns once the process has started."""

    def train(self, task: Task) -> TrainingResult | UserError:
        """See worker.train_alone."""
        from animalclf.training.worker import train_alone  # imports PyTorch

        return train_alone(task)


def reused_mailbox() -> Any:
    """The mailbox of the last training in this process, or a new one if that was stopped."""
    global _mailbox
    if _mailbox is None or not ray.get(_mailbox.next_training.remote()):
        _mailbox = open_mailbox()
    return _mailbox


def start_worker(use_gpu: bool) -> Any:
    """Start a worker, which imports what a training needs. Returns its actor handle."""
    resources = {"num_gpus": 1, "num_cpus": 0} if use_gpu else {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
    actor = ray.remote(**resources, runtime_env=runtime_env())(TrainingWorker).remote()
    actor.import_all.remote()
    return actor


def adopt(actor: Any) -> None:
    """Let the next training of this process use this worker, which another process has started."""
    global _idle
    _idle = actor


class ReusingTrainer:
    """Trains as Ray Train's trainers do, on the worker of the last training in this process if it lives."""

    def __init__(self, task: Task, use_gpu: bool) -> None:
        self.task, self.use_gpu = task, use_gpu

    def fit(self) -> Any:
        """Returns an object with the attribute `return_value`, as worker.train_alone. Raises Stopped, UserError if no
        node has room for the worker, and the error of the worker after `train.max_failures` others."""
        failures = 0
        while True:
            try:
                return SimpleNamespace(return_value=self._train())
            except ray.exceptions.RayError:
                if ray.get(self.task.mailbox.stopped.remote()):
                    raise Stopped from None
                if failures == self.task.config.train.max_failures:
                    raise
                failures += 1

    def _train(self) -> TrainingResult | UserError:
        global _idle
        actor, _idle = _idle, None
        if actor is None or not _lives(actor):
            actor = start_worker(self.use_gpu)
        try:
            if not ray.get(self.task.mailbox.enter.remote(actor)):
                raise Stopped
            _wait_until_ready(actor)
            result: TrainingResult | UserError = ray.get(actor.train.remote(self.task))
        except BaseException:
            end_workers(actor)
            raise
        _idle = actor
        return result


def _lives(actor: Any) -> bool:
    """Whether the process of `actor` has not ended since its last training; also if it still starts."""
    try:
        ray.get(actor.ready.remote(), timeout=ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return True
    except ray.exceptions.RayActorError:
        return False
    return True


def _wait_until_ready(actor: Any) -> None:
    """Until the process of `actor` has started. Raises UserError if no node has room for it in time."""
    try:
        ray.get(actor.ready.remote(), timeout=START_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        raise UserError(
            f"the cluster had no room for a worker for {START_SECONDS / 60:.0f} minutes; continue with --resume"
        ) from error

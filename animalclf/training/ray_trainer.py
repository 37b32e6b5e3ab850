"""A training on Ray Train, followed from this process: trainer, fit thread, events of the workers."""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from typing import Any

import ray
import ray.train

from animalclf.cluster_size import free_cpus_text
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.ray_loader import cache_images
from animalclf.errors import UserError
from animalclf.raycompat.errors import causes
from animalclf.rows import StartupEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training.progress import Report, open_mailbox
from animalclf.training.resources import Workers, input_cpus, scaling
from animalclf.training.reused_worker import ReusingTrainer, reused_mailbox
from animalclf.training.stop import EndRun, Stopped, Switch
from animalclf.training.task import Start, Task
from animalclf.utils.console import show_line
from animalclf.utils.leftovers import remove_leftovers
from animalclf.utils.process_variables import runtime_env
from animalclf.utils.stall import told_of_stalls

POLL_SECONDS, START_POLL_SECONDS = 0.2, 0.05  # between two requests for events of the workers; until the first step
STOP_SECONDS = 30.0  # for the workers to end after an interrupt
OUT_OF_MEMORY = (  # Ray's own text is 60 lines of statistics
    "the node of a worker is out of memory: free memory there, lower train.batch_size, or in a comparison "
    "--max-concurrent; then continue with --resume"
)
START_ATTEMPTS = 60  # of 30 s each (cluster.ENVIRONMENT): the cluster may have to start or replace machines first


def train_on_ray(
    config: Config,
    prepared: Prepared,
    run: Run,
    workers: Workers,
    report: Report,
    start: Start = Start(),  # noqa: B008  (immutable)
    switch: Switch | None = None,
) -> TrainingResult:
    """Train on `workers` Ray Train workers. Dead workers are replaced up to `train.max_failures` times, each time at
    the cost of the running epoch.

    Raises UserError for what the user can fix (also OUT_OF_MEMORY), stop.Stopped if `switch` ended the training, and
    Ray's TrainingFailedError otherwise. Ctrl-C stops the workers; `--resume` continues.
    """
    mailbox, switch = reused_mailbox() if workers.reused else open_mailbox(), switch or Switch()
    cache = start.cache or cache_images(prepared, num_cpus=input_cpus(workers))
    name = f"animalclf-{uuid.uuid4().hex[:12]}"
    task = Task(config, prepared.root, run.root, cache, mailbox, start.check)
    fit = FitThread(_trainer(task, workers, name), switch)
    switch.begin(mailbox)
    fit.start()
    try:
        result = _follow(fit, mailbox, run, workers, report, start.begin)
    except BaseException as error:  # an interrupt, a lost lock, a full disk: no worker may continue in an unlocked run
        _stop_workers(switch)
        if isinstance(error, KeyboardInterrupt):  # not after a lost lock: another process writes here
            remove_leftovers(run.root, below=True, writers_ended=True)
        if is_out_of_memory(error):
            raise UserError(OUT_OF_MEMORY) from error
        raise
    finally:
        shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)  # of Ray Train
    remove_leftovers(run.root, below=True, writers_ended=True)  # of a worker that was killed while it wrote
    return result


def _trainer(task: Task, workers: Workers, name: str) -> Any:
    """The trainer of a training. `name`: of Ray Train's folder for temporary files."""
    if workers.reused and workers.maximum == 1:
        return ReusingTrainer(task, workers.use_gpu)
    from animalclf.raycompat.train_controller import in_process_trainer

    options: dict[str, Any] = {}
    trainer: Any = in_process_trainer()
    if trainer is None or workers.maximum > 1:
        from ray.train.torch import TorchConfig, TorchTrainer  # imports PyTorch

        # A single worker needs no process group.
        trainer, options = (trainer, {"backend_config": TorchConfig()}) if trainer else (TorchTrainer, {})
    return trainer(
        train_in_worker,
        train_loop_config={"task": task},
        scaling_config=scaling(workers),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=tempfile.gettempdir(),  # no checkpoints: they are in the run folder
            worker_runtime_env=runtime_env(),
            failure_config=ray.train.FailureConfig(
                max_failures=task.config.train.max_failures, controller_failure_limit=START_ATTEMPTS
            ),
            callbacks=[EndRun(task.mailbox)],
        ),
        **options,
    )


def train_in_worker(settings: dict[str, Task]) -> TrainingResult | UserError | None:
    """Ray Train's loop function. Only the worker imports PyTorch."""
    from animalclf.training.worker import train_rank

    return train_rank(settings["task"])


class FitThread(threading.Thread):
    """`trainer.fit()` in a thread, so that Ctrl-C reaches the main thread and not Ray's handler."""

    def __init__(self, trainer: Any, switch: Switch) -> None:
        super().__init__(daemon=True)
        self.trainer, self.switch = trainer, switch
        self.outcome: queue.Queue[TrainingResult | Exception] = queue.Queue()

    def run(self) -> None:
        """Put the result, or the error that ended the training, into `outcome`."""
        try:
            self.outcome.put(self.trainer.fit().return_value or Stopped())
        except Exception as error:  # noqa: BLE001  (raised in the main thread, which would hang without it)
            self.outcome.put(Stopped() if self.switch.requested else error)
        finally:
            self.switch.end()


def _follow(
    fit: FitThread, mailbox: Any, run: Run, workers: Workers, report: Report, begin: Callable[[], None]
) -> TrainingResult:
    """Until the training ends: report its events, check the run folder's lock, say when the workers are silent. Calls
    `begin` when they have checked the training; they wait for it. Returns the result; raises the training's error."""
    begun, started = False, False
    with told_of_stalls(lambda: f"{workers.text} requested; {free_cpus_text()}") as progressed:
        while True:
            run.check_locked()
            try:
                outcome = fit.outcome.get(timeout=POLL_SECONDS if started else START_POLL_SECONDS)
            except queue.Empty:
                outcome = None
            checked, events = ray.get(mailbox.take.remote(begun))
            if checked and not begun:
                begin()
                begun = True
            for event in events:
                report(event)
                progressed()
                started = started or not isinstance(event, StartupEvent)
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return outcome


def _stop_workers(switch: Switch) -> None:
    """End the training: Ray may be the caller's and outlive this call."""
    try:
        switch.stop()
        switch.wait(STOP_SECONDS)
    except ray.exceptions.RayError as error:  # the mailbox died with its node; the error that led here is raised
        show_line(f"the workers could not be stopped ({type(error).__name__})")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Ray's memory monitor ended a worker, for example one of the `worker_failures` of Ray Train's error."""
    return any(isinstance(cause, ray.exceptions.OutOfMemoryError) for cause in causes(error))

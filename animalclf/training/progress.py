"""Messages between the processes of a training or a comparison. Few imports, because the mailbox's process loads them
all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from animalclf.rows import ProgressEvent, TrialFailure, TrialProgress

Event = ProgressEvent | TrialProgress | TrialFailure
Report = Callable[[ProgressEvent], None]  # takes the progress events of a training


class Mailbox:
    """An actor: events of workers and trials, and requests to stop a training or a trial. If its process dies, Ray
    starts it again: events that nobody has taken yet are not shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.training_workers: Any = None  # their placement group, or the only one's actor handle
        self.stopping, self.checked, self.begun = False, False, False
        self.trials_to_stop: set[str] = set()  # slugs
        self.ended_trials: set[str] = set()
        self.trial_workers: dict[str, Any] = {}  # by slug

    def post(self, event: Event, workers: Any = None) -> None:
        """An event, of a worker with `workers` as for `enter`."""
        self.events.append(event)
        self.training_workers = workers or self.training_workers

    def take(self, begun: bool = True) -> tuple[bool, list[Event]]:
        """Whether the workers have checked the training, and the events since the last call. `begun`: whether the
        workers may train; the driver repeats it with every call."""
        self.begun = begun
        events, self.events = self.events, []
        return self.checked, events

    def next_training(self) -> bool:
        """Another training of the same process starts. Returns False if the last one was to stop: this one then needs
        another mailbox."""
        self.checked = self.begun = False
        return not self.stopping

    def may_train(self) -> bool:
        """A worker has checked the training. Returns whether it may train."""
        self.checked = True
        return self.begun

    def enter(self, workers: Any) -> bool:
        """A worker starts. `workers`: what ends all of the training, see stop.end_workers. Returns False if the
        training is to stop."""
        self.training_workers = workers
        return not self.stopping

    def stop(self) -> Any:
        """Request the end of the training. Returns its workers as in `enter`, None before they start."""
        self.stopping = True
        return self.training_workers

    def workers(self) -> Any:
        """The workers as in `enter`, None before they start."""
        return self.training_workers

    def stopped(self) -> bool:
        """Whether the end of the training was requested."""
        return self.stopping

    def stop_trials(self, slugs: set[str]) -> None:
        """Request the end of trials."""
        self.trials_to_stop |= slugs

    def is_to_stop(self, slug: str, workers: Any = None) -> bool:
        """Whether the end of the trial was requested. `workers`: as in `enter`, once they start."""
        self.trial_workers[slug] = workers or self.trial_workers.get(slug)
        return slug in self.trials_to_stop

    def workers_of(self, slug: str) -> Any:
        """The last workers of the trial; None if it had none."""
        return self.trial_workers.get(slug)

    def trial_ended(self, slug: str) -> None:
        """The trial's training has ended."""
        self.ended_trials.add(slug)

    def have_ended(self, slugs: set[str]) -> bool:
        """Whether the trainings of all these trials have ended."""
        return slugs <= self.ended_trials


def open_mailbox() -> Any:
    """Start a Mailbox on this process's node, so that no other node's failure ends it. Returns the actor's handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": this_node}
    return ray.remote(**options)(Mailbox).remote()

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
        self.group: Any = None  # ray.util.placement_group.PlacementGroup of the training's workers
        self.stopping = False
        self.trials_to_stop: set[str] = set()  # slugs
        self.ended_trials: set[str] = set()
        self.trial_groups: dict[str, Any] = {}  # placement groups of the workers, by slug

    def post(self, event: Event, group: Any = None) -> None:
        """An event, of a worker with its placement group."""
        self.events.append(event)
        self.group = group or self.group

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events

    def enter(self, group: Any) -> bool:
        """A worker of placement group `group` starts. Returns False if the training is to stop."""
        self.group = group
        return not self.stopping

    def stop(self) -> Any:
        """Request the end of the training. Returns its workers' placement group, None before they start."""
        self.stopping = True
        return self.group

    def workers(self) -> Any:
        """The placement group of the training's workers, None before they start."""
        return self.group

    def stopped(self) -> bool:
        """Whether the end of the training was requested."""
        return self.stopping

    def stop_trials(self, slugs: set[str]) -> None:
        """Request the end of trials."""
        self.trials_to_stop |= slugs

    def is_to_stop(self, slug: str, group: Any = None) -> bool:
        """Whether the end of the trial was requested. `group`: the placement group of its workers, once they start."""
        self.trial_groups[slug] = group or self.trial_groups.get(slug)
        return slug in self.trials_to_stop

    def trial_group(self, slug: str) -> Any:
        """The last placement group of the trial's workers; None if it had none."""
        return self.trial_groups.get(slug)

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

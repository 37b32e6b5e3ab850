"""What processes tell each other while a training or a comparison runs. Few imports: it is an actor, whose process has
to load them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from animalclf.rows import ProgressEvent, TrialFailure, TrialProgress

Event = ProgressEvent | TrialProgress | TrialFailure
Report = Callable[[ProgressEvent], None]  # takes the progress events of a training


class Mailbox:
    """An actor: progress from the workers to the driver, and words that anyone may say and ask for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.words: set[str] = set()
        self.group: Any = None  # ray.util.placement_group.PlacementGroup of the training's workers
        self.stopping = False

    def post(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def say(self, word: str) -> None:
        self.words.add(word)

    def said(self, word: str) -> bool:
        return word in self.words

    def enter(self, group: Any) -> bool:
        """A worker of placement group `group` starts. Returns False where the training is to stop."""
        self.group = group
        return not self.stopping

    def stop(self) -> Any:
        """The training is to stop. Returns its workers' placement group, None before they start."""
        self.stopping = True
        return self.group

    def stopped(self) -> bool:
        return self.stopping


def open_mailbox() -> Any:
    """The handle of a Mailbox on the driver's own node, so that it dies with no other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()

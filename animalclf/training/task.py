"""What the driver sends to the training workers. Few imports: the driver needs no PyTorch for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from animalclf.config import Config
    from animalclf.data.ray_loader import ImageCache


@dataclass(frozen=True)
class Task:
    """What every worker receives: the training, by URLs of its prepared set and run folder."""

    config: Config
    prepared: str
    run: str
    cache: ImageCache
    mailbox: Any  # actor handle of progress.Mailbox
    check: Callable[[], object] | None = None
    """See Start."""


@dataclass(frozen=True)
class Start:
    """The start of a training on Ray."""

    cache: ImageCache | None = None
    """The stored images, possibly shared by several trainings; None: in the object store, for this training."""
    check: Callable[[], object] | None = None
    """Called by each worker before it trains. A UserError ends the training before `begin`."""
    begin: Callable[[], None] = lambda: None
    """Called in the driver after the check; then the workers train."""

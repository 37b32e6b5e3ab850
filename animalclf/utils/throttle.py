"""Limits how often something happens, for progress lines and events."""

from __future__ import annotations

import math
import time


class Throttle:
    """Lets something happen at most once every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last = seconds, -math.inf

    def ready(self, always: bool = False) -> bool:
        """Whether it is time again (or `always`); if so, the interval starts anew."""
        if not always and time.monotonic() - self._last < self.seconds:
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Start the interval now."""
        self._last = time.monotonic()

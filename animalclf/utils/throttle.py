"""Rate limit of progress lines and events."""

from __future__ import annotations

import math
import time


class Throttle:
    """Ready at most once every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last = seconds, -math.inf

    def ready(self, always: bool = False) -> bool:
        """Whether the interval is over (or `always`); if so, the next one starts."""
        if not always and time.monotonic() - self._last < self.seconds:
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Start an interval now."""
        self._last = time.monotonic()

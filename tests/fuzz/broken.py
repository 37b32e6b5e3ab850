"""Targets for tests of the runner: answers that are wrong, raise, end the process or do not come."""

from __future__ import annotations

import os
import random

from fuzz.runner import Target


class Broken(Target):
    def check(self, rng: random.Random) -> str:
        number = rng.randrange(4)
        assert number != 1, "wrong answer"
        if number == 2:
            raise KeyError("name")
        if number == 3:
            os.abort()
        return "read"


class Endless(Target):
    def check(self, rng: random.Random) -> str:
        while True:
            rng.random()

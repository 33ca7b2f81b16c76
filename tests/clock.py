"""Time for tests: pauses that pass at once."""

from __future__ import annotations

import time


class Clock:
    """The time of a test: runs as the real one does, but a pause passes at once and counts all the same."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.slept: list[float] = []
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.ahead

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def sleep(self, seconds: float) -> None:
        """Take the place of ``time.sleep``."""
        self.slept.append(seconds)
        self.advance(seconds)
        assert len(self.slept) < 1000, "it waits for ever"


class Pauses(list[float]):
    """Takes the place of ``sleep``: notes pauses instead of making them, and ends a loop that has no end."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        assert len(self) < 1000, "it waits for ever"

"""Time, as something that is passed in, so that tests run on virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow, and a way to let them pass."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when ``seconds`` have passed."""
        ...


class MonotonicClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Return seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return when ``seconds`` have passed."""
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock for tests: sleeping advances it at once, and ``slept`` lists for how long."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self.slept: list[float] = []

    def now(self) -> float:
        """Return the virtual time."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Advance the virtual time and let other tasks run."""
        self.slept.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)

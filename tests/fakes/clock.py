"""Time that passes only when the test says so, for tests in which several tasks wait at once."""

from __future__ import annotations

import asyncio
import heapq
import itertools


async def settle() -> None:
    """Let every task run until it waits for something that is not there yet."""
    for _ in range(25):
        await asyncio.sleep(0)


class SteppedClock:
    """A clock whose sleepers wake when :meth:`advance` has brought their time."""

    def __init__(self) -> None:
        self._now = 0.0
        self._count = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    def now(self) -> float:
        """Return the time."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the time has come."""
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._count), woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking sleepers in the order of their times."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await settle()
        self._now = end

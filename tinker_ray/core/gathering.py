"""Waiting for the rest of a group, but not for long: some of it may never come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.transport.clock import Clock

PATIENCE_S = 1.0


class Gathering:
    """Lets the first of a group wait until the others have arrived, or a second has passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrived: dict[int, set[int]] = {}
        self._complete: dict[int, asyncio.Event] = {}

    async def meet(self, number: int, group: range) -> None:
        """Arrive; only the first number of a group of several waits."""
        if len(group) == 1:
            return
        arrived = self._arrived.setdefault(group.start, set())
        arrived.add(number)
        complete = self._complete.setdefault(group.start, asyncio.Event())
        if len(arrived) == len(group):
            complete.set()
        if number == group.start:
            await self._wait(complete)
        if len(arrived) == len(group):
            self._arrived.pop(group.start, None)
            self._complete.pop(group.start, None)

    async def _wait(self, complete: asyncio.Event) -> None:
        waits = {
            asyncio.ensure_future(complete.wait()),
            asyncio.ensure_future(self._clock.sleep(PATIENCE_S)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

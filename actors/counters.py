"""The numbers of what a session makes, for several processes that make things in it.

Knows nothing of Ray. The owner of the session counts by itself until it shares the session; then it
hands its counters over, and everybody asks here. Invariant: no number is issued twice, not even
across a restart, because a counter is written down before its number is told.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tinker_ray.errors import StaleHandleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.journal import Record

HAND_OVER_S = 60.0
"""How long to wait for the owner's counters."""


class Counters:
    """Counters by name. Belongs to the event loop that uses it."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._next: dict[str, int] = {}
        self._known = asyncio.Event()
        self._loading = asyncio.Lock()
        self._loaded = False

    def __repr__(self) -> str:
        """Show what comes next."""
        return f"Counters({self._next})"

    async def adopt(self, counters: Mapping[str, int]) -> None:
        """Take over from the owner; a repetition, or one after a restart, changes nothing back."""
        await self._load()
        for name, number in counters.items():
            self._next[name] = max(number, self._next.get(name, 0))
        await self._record.store(self._encode)
        self._known.set()

    async def take(self, name: str) -> int:
        """Issue a number.

        Raises:
            StaleHandleError: The owner of the session never handed its counters over: it is gone.
            OSError: The counter could not be written down.
        """
        await self._load()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._known.wait()
        except TimeoutError:
            message = "the session's owner did not hand its counters over: it is probably gone"
            raise StaleHandleError(message) from None
        number = self._next.get(name, 0)
        self._next[name] = number + 1
        await self._record.store(self._encode)
        return number

    async def close(self) -> None:
        """Forget what was written down."""
        await self._record.drop()

    async def _load(self) -> None:
        async with self._loading:
            if self._loaded:
                return
            kept = await self._record.load()
            if kept is not None:
                self._next.update(json.loads(kept))
                self._known.set()
            self._loaded = True

    def _encode(self) -> bytes:
        return json.dumps(self._next).encode()

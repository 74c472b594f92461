"""What an actor must still know after a restart, and cannot learn from anybody else.

Knows nothing of Ray; the actors' own journal is the cluster's key-value store, see
:mod:`actors.binding`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tinker_ray.transport.clock import Clock

logger = logging.getLogger(__name__)

STORE_ATTEMPTS = 30
PAUSE_S = 1.0


class Journal(Protocol):
    """Keeps small values beyond the life of a process."""

    async def load(self, key: str) -> bytes | None:
        """Return what was stored last; None if nothing was."""
        ...

    async def store(self, key: str, value: bytes) -> None:
        """Keep a value; when this returns, it is kept.

        Raises:
            OSError: It could not be.
        """
        ...

    async def drop(self, key: str) -> None:
        """Forget a value."""
        ...


class MemoryJournal:
    """A journal that ends with the object: for a process that is not restarted."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def load(self, key: str) -> bytes | None:
        """Return what was stored last."""
        return self.values.get(key)

    async def store(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self.values[key] = value

    async def drop(self, key: str) -> None:
        """Forget a value."""
        self.values.pop(key, None)


class Record:
    """One value of a journal, written by one process, the newest state last.

    Writers at the same time share a write: each returns when a state that holds its change is kept.
    """

    def __init__(self, journal: Journal, key: str, clock: Clock) -> None:
        self._journal = journal
        self._key = key
        self._clock = clock
        self._lock = asyncio.Lock()
        self._wanted = 0
        self._kept = 0

    async def load(self) -> bytes | None:
        """Return what a predecessor of this process stored last."""
        return await self._journal.load(self._key)

    async def store(self, state: Encoder) -> None:
        """Keep the present state.

        Args:
            state: Gives it, at the moment of the write.

        Raises:
            OSError: It could not be kept for about half a minute.
        """
        self._wanted += 1
        change = self._wanted
        async with self._lock:
            if self._kept >= change:
                return
            newest = self._wanted
            await self._write(state())
            self._kept = newest

    async def drop(self) -> None:
        """Forget it: the process ends for good."""
        await self._journal.drop(self._key)

    async def _write(self, value: bytes) -> None:
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                await self._journal.store(self._key, value)
            except OSError as error:
                if attempt == STORE_ATTEMPTS:
                    raise
                logger.warning("%s could not be stored: %s", self._key, error)
                await self._clock.sleep(PAUSE_S)
            else:
                return


class Encoder(Protocol):
    """Gives a state as bytes."""

    def __call__(self) -> bytes:
        """Encode the present state."""
        ...

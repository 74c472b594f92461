"""A gate between event loops: closed until it is opened, from whichever loop."""

from __future__ import annotations

import asyncio
import threading


class Gate:
    """As ``asyncio.Event``, for waiters on several loops: environments run on one of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def wait(self) -> None:
        """Wait until the gate is open."""
        mine = asyncio.Event()
        with self._lock:
            if self._is_open:
                return
            self._waiters.append((asyncio.get_running_loop(), mine))
        await mine.wait()

    def open(self) -> None:
        """Let everybody through; idempotent."""
        with self._lock:
            self._is_open = True
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

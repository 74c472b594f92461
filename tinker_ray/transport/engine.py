"""Connections to an embedded engine, whose end is noticed at once.

A service that does not answer may come back, so that requests to it are repeated for minutes. An
engine's process that has ended does not: every attempt then raises an error that says so, which no
retry waits out. Invariant: after the process has ended, no attempt is pending for longer than it
takes the system to close its connections.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tinker_ray.errors import APIConnectionError, EngineError
from tinker_ray.transport.watch import ProcessWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tinker_ray.config import EngineProcess
    from tinker_ray.transport.http import HttpTransport
    from tinker_ray.transport.message import Request, Response, Stream

LOG_LINES = 12
NEWS_S = 0.2
"""How long after a lost connection the news of the process's end may take."""


class EngineTransport:
    """Sends requests to an engine while it lives.

    Args:
        transport: Sends them.
        process: The engine's.
    """

    def __init__(self, transport: HttpTransport, process: EngineProcess) -> None:
        self._transport = transport
        self._process = process
        self._has_ended = asyncio.Event()
        self._watch = ProcessWatch(process.pid, self._has_ended.set)

    def __repr__(self) -> str:
        """Show the connections, and whether the engine lives."""
        state = "has ended" if self._has_ended.is_set() else f"pid {self._process.pid}"
        return f"EngineTransport({self._transport!r}, {state})"

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send a request once and return the answer, whatever its status.

        Raises:
            EngineError: The engine has ended.
            APIConnectionError: There was no answer.
            APITimeoutError: There was none in time.
            StaleHandleError: The transport is closed.
        """
        self._check_alive()
        try:
            return await self._transport.attempt(request, headers)
        except APIConnectionError:
            await self._look()
            raise

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        """Get what is at any address, piece by piece.

        Raises:
            EngineError: The engine has ended.
            APIConnectionError: There was no answer, or it broke off.
            StaleHandleError: The transport is closed.
        """
        self._check_alive()
        try:
            async with self._transport.stream(url, headers) as stream:
                yield stream
        except APIConnectionError:
            await self._look()
            raise

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        self._watch.close()
        await self._transport.aclose()

    async def _look(self) -> None:
        """Find out whether the engine's end is why there was no answer."""
        try:
            async with asyncio.timeout(NEWS_S):
                await self._has_ended.wait()
        except TimeoutError:
            return
        self._check_alive()

    def _check_alive(self) -> None:
        if self._has_ended.is_set():
            message = (
                f"the embedded engine (process {self._process.pid}) has ended, and with it the "
                "models in training; checkpoints are kept: make a new ServiceClient and load one"
            )
            tail = self._last_output()
            raise EngineError(f"{message}. Its last output:\n{tail}" if tail else message) from None

    def _last_output(self) -> str:
        try:
            text = self._process.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_LINES:])

"""Clients that are futures of themselves, as scripts of both upstream generations use them.

In the current generation, creating a client returns a future of it that can be awaited, asked for
its result, or used as the client; in the older one it returns the client. Ours is the client, and
it answers to both. Where an event loop runs in the caller's thread, it is returned at once and made
in the background; whoever uses it before it is there waits. Elsewhere creating it blocks, so that
what fails does so at the call.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, cast

from tinker_ray.clients.api_future import APIFuture

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from concurrent.futures import Future


class Ready:
    """A client that is a future of itself."""

    _making: APIFuture[Any] | None = None
    """Gives the client whose state this one takes over; None if this was not made by promise."""

    @classmethod
    def promised(cls, work: Coroutine[Any, Any, Self]) -> Self:
        """Return the client that a coroutine makes on the bridge.

        Raises:
            TinkerError: Making it failed. Where an event loop runs, the first use raises it.
        """
        making = APIFuture.start(work)
        if not _in_event_loop():
            return making.result()
        client = cls.__new__(cls)
        client._making = making  # noqa: SLF001 - its own
        making.add_done_callback(client._adopt)  # noqa: SLF001
        return client

    def __repr__(self) -> str:
        """Show the client, without waiting for one that is being made."""
        shown = "pending" if self._making is not None else self._shown()
        return f"{type(self).__name__}({shown})"

    def _shown(self) -> str:
        """Tell what this is a client of."""
        return ""

    def __await__(self) -> Generator[Any, None, Self]:
        """Wait for the client."""
        return self.result_async().__await__()

    def result(self, timeout: float | None = None) -> Self:
        """Block until the client is there, and return it.

        Args:
            timeout: Seconds to wait.

        Raises:
            TimeoutError: The time ran out.
            TinkerError: Making it failed.
        """
        if self._making is not None:
            self._making.result(timeout)
            self._adopt(self._making)
        return self

    async def result_async(self, timeout: float | None = None) -> Self:
        """Wait for the client without blocking the loop.

        Args:
            timeout: Seconds to wait; making the client is cancelled when they run out.

        Raises:
            TimeoutError: The time ran out.
            TinkerError: Making it failed.
        """
        if self._making is not None:
            await self._making.result_async(timeout)
            self._adopt(self._making)
        return self

    def future(self) -> Future[Self]:
        """Return a future of the standard library that gives the client."""
        return APIFuture.start(self.result_async())

    async def coroutine(self) -> Self:
        """Wait as a coroutine, for functions that take nothing else."""
        return await self

    def _adopt(self, making: Future[Any]) -> None:
        """Take over the state of the client that was made."""
        if self._making is not None and not making.cancelled() and making.exception() is None:
            vars(self).update(vars(making.result()))
            self._making = None

    if not TYPE_CHECKING:  # or every attribute would seem to exist

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            """Wait for a client that is being made: it has no attributes yet."""
            if self._making is None or name.startswith("__"):
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message)
            return getattr(cast("Ready", self.result()), name)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

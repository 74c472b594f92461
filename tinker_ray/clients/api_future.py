"""The future that users hold: awaitable from any loop, blocking in any thread.

Dropping it, or a ``result(timeout)`` that runs out, leaves the operation running; cancelling the
task that awaits it cancels the operation.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinker_ray.clients.bridge import Bridge
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from concurrent.futures import Future

T = TypeVar("T")


class APIFuture(Generic[T]):
    """The result of an operation that is under way."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    @classmethod
    def start(cls, work: Coroutine[Any, Any, T]) -> APIFuture[T]:
        """Start a coroutine on the process's bridge."""
        return cls(Bridge.get().submit(work))

    @classmethod
    def done(cls) -> APIFuture[None]:
        """Make a future of something that has happened."""
        future: Future[None] = concurrent.futures.Future()
        future.set_result(None)
        return APIFuture(future)

    def __repr__(self) -> str:
        """Show whether it is done."""
        state = "done" if self._future.done() else "pending"
        return f"APIFuture({state})"

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the loop; a cancelled wait cancels the operation."""
        return asyncio.wrap_future(self._future).__await__()

    def result(self, timeout: float | None = None) -> T:
        """Block until the result is there.

        Args:
            timeout: Seconds to wait; the operation goes on when they run out.

        Raises:
            TimeoutError: The time ran out.
            TinkerError: The operation failed.
        """
        if Bridge.get().is_current and not self._future.done():
            self._future.cancel()
            message = "result() would block the event loop that has to produce it: await instead"
            raise ConfigurationError(message)
        return self._future.result(timeout)

    async def result_async(self, timeout: float | None = None) -> T:
        """Wait for the result without blocking the loop.

        Args:
            timeout: Seconds to wait; the operation is cancelled when they run out.

        Raises:
            TimeoutError: The time ran out.
            TinkerError: The operation failed.
        """
        return await asyncio.wait_for(asyncio.wrap_future(self._future), timeout)

    def future(self) -> Future[T]:
        """Return the underlying future; cancelling it cancels the operation."""
        return self._future

    async def coroutine(self) -> T:
        """Wait as a coroutine, for functions that take nothing else."""
        return await self

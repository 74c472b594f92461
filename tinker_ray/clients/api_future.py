"""The future that users hold: awaitable from any loop, blocking in any thread.

It is a ``concurrent.futures.Future`` too, so that ``concurrent.futures.wait``, ``as_completed``,
``asyncio.wrap_future`` and done callbacks work with it; callbacks run on the bridge and must not
block. Dropping it, or a ``result(timeout)`` that runs out, leaves the operation running; cancelling
it, or the task that awaits it, cancels the operation.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from tinker_ray.clients.bridge import Bridge
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")
U = TypeVar("U")


class APIFuture(Future[T]):
    """The result of an operation that is under way.

    Args:
        future: Another future whose end this one takes over; cancelling this cancels that.
    """

    def __init__(self, future: Future[T] | None = None) -> None:
        super().__init__()
        if future is not None:
            self._follow(future)

    @classmethod
    def start(cls, work: Coroutine[Any, Any, T]) -> APIFuture[T]:
        """Start a coroutine on the process's bridge."""
        future: APIFuture[T] = cls()
        Bridge.get().carry(work, future)
        return future

    @classmethod
    def start_detached(cls, work: Coroutine[Any, Any, T]) -> APIFuture[T]:
        """Start a coroutine on the bridge that certainly starts and cannot be cancelled."""
        future: APIFuture[T] = cls()
        Bridge.get().carry(work, future, detached=True)
        return future

    @classmethod
    def of(cls, value: T) -> APIFuture[T]:
        """Make a future of something that is there."""
        future: APIFuture[T] = cls()
        future.set_result(value)
        return future

    @classmethod
    def failed(cls, error: BaseException) -> APIFuture[T]:
        """Make a future of something that cannot come."""
        future: APIFuture[T] = cls()
        future.set_exception(error)
        return future

    def __repr__(self) -> str:
        """Show whether it is done."""
        return f"APIFuture({'done' if self.done() else 'pending'})"

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the loop; a cancelled wait cancels the operation."""
        return self.result_async().__await__()

    def result(self, timeout: float | None = None) -> T:
        """Block until the result is there.

        Args:
            timeout: Seconds to wait; the operation goes on when they run out.

        Raises:
            TimeoutError: The time ran out.
            CancelledError: The operation was cancelled.
            ConfigurationError: This was called on the event loop that has to produce the result.
            TinkerError: The operation failed.
        """
        self._check_may_block()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Block until the operation has ended, and return what it raised, if it did.

        Args:
            timeout: Seconds to wait; the operation goes on when they run out.

        Raises:
            TimeoutError: The time ran out.
            CancelledError: The operation was cancelled.
            ConfigurationError: This was called on the event loop that has to produce the result.
        """
        self._check_may_block()
        return super().exception(timeout)

    async def result_async(self, timeout: float | None = None) -> T:
        """Wait for the result without blocking the loop.

        Args:
            timeout: Seconds to wait; the operation is cancelled when they run out.

        Raises:
            TimeoutError: The time ran out.
            TinkerError: The operation failed.
        """
        waiting = asyncio.wrap_future(self)
        return await (waiting if timeout is None else asyncio.wait_for(waiting, timeout))

    def then(self, change: Callable[[T], U]) -> APIFuture[U]:
        """Return a future of what a function makes of the result; cancelling it cancels this."""

        async def changed() -> U:
            return change(await self)

        return APIFuture.start(changed())

    def future(self) -> Future[T]:
        """Return the future of the standard library that this is."""
        return self

    async def coroutine(self) -> T:
        """Wait as a coroutine, for functions that take nothing else."""
        return await self

    def _check_may_block(self) -> None:
        if not self.done() and Bridge.get().is_current:
            message = (
                "result() would block the event loop that has to produce it: await the future, or "
                "let a done callback hand its work to a thread"
            )
            raise ConfigurationError(message)

    def _follow(self, future: Future[T]) -> None:
        if future.running():
            self.set_running_or_notify_cancel()
        else:
            self.add_done_callback(lambda _: future.cancel() if self.cancelled() else None)
        future.add_done_callback(self._take_over)

    def _take_over(self, future: Future[T]) -> None:
        if future.cancelled():
            self.cancel()
        if not self.running() and not self.set_running_or_notify_cancel():
            return
        error = future.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(future.result())


AwaitableConcurrentFuture = APIFuture
"""Upstream's name of the future that wraps one of the standard library."""

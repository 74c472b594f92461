"""The event loop on which users' environments run, in a thread of its own.

So they delay neither the samples of others nor the renewal of permits. Knows nothing of
environments. Invariant: closing it cancels what runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

T = TypeVar("T")

CLOSE_S = 1.0


class EnvLoop:
    """An event loop in a daemon thread.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str = "environments") -> None:
        self.loop = _new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there; cancelling this cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it, from a thread that has no event loop to keep."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs there itself."""
        return threading.current_thread() is self._thread

    def join(self) -> None:
        """Wait for the thread's end, after the loop was told to stop."""
        self._thread.join(CLOSE_S)

    async def aclose(self) -> None:
        """Cancel what runs and end the thread, unless something blocks it; idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.run(self._cancel_all())
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self.loop.call_soon_threadsafe(self.loop.stop)

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()


async def at_once(coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
    """Run coroutines concurrently; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def is_being_cancelled() -> bool:
    """Whether somebody cancelled the running task, rather than what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop, of uvloop's kind where that is installed."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

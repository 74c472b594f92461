"""The one event loop of a process on which all I/O of the clients runs, in a daemon thread.

Callers block on it (sync methods) or await it from loops of their own (async methods); their code
never runs on it, so that it cannot stall it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

T = TypeVar("T")


class Bridge:
    """An event loop in a daemon thread; :meth:`get` gives the process's own."""

    _instance: ClassVar[Bridge | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.loop = _new_event_loop()
        self._pid = os.getpid()
        self._running: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="tinker-ray", daemon=True)
        self._thread.start()

    @classmethod
    def get(cls) -> Bridge:
        """Return the bridge of this process; a forked child gets its own."""
        with cls._lock:
            if cls._instance is None or cls._instance._pid != os.getpid():  # noqa: SLF001
                cls._instance = cls()
            return cls._instance

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the bridge; cancelling the future cancels it."""
        outcome: Future[T] = concurrent.futures.Future()
        self.carry(work, outcome)
        return outcome

    def submit_detached(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the bridge that certainly starts and cannot be cancelled."""
        outcome: Future[T] = concurrent.futures.Future()
        self.carry(work, outcome, detached=True)
        return outcome

    def carry(
        self, work: Coroutine[Any, Any, T], outcome: Future[T], *, detached: bool = False
    ) -> None:
        """Run a coroutine on the bridge and settle a future with its end.

        Coroutines handed over one after the other start in that order, each in a copy of its
        caller's context.

        Args:
            work: What to run.
            outcome: A new future. Cancelling it cancels the work.
            detached: The work certainly starts and cannot be cancelled.
        """
        if detached:
            outcome.set_running_or_notify_cancel()

        def begin() -> None:
            if outcome.cancelled():
                outcome.set_running_or_notify_cancel()  # tells those who wait for several futures
                work.close()
                return
            task = self.loop.create_task(work)
            self._running.add(task)
            task.add_done_callback(finish)
            if not detached:
                outcome.add_done_callback(lambda _: self._cancel(task, outcome))

        def finish(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            _settle(outcome, task)

        self.loop.call_soon_threadsafe(begin)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the bridge itself, where blocking would be for ever."""
        return threading.current_thread() is self._thread

    def _cancel(self, task: asyncio.Task[Any], outcome: Future[Any]) -> None:
        if outcome.cancelled():
            self.loop.call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


def _settle(outcome: Future[T], task: asyncio.Task[T]) -> None:
    """Give a future the end of a task, unless its owner has cancelled it."""
    if task.cancelled():
        outcome.cancel()
    if not outcome.running() and not outcome.set_running_or_notify_cancel():
        return
    if task.cancelled():
        outcome.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop, of uvloop's kind where that is installed: it costs half of asyncio's."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

"""Threads for calls that may block: as many as are needed, up to a limit, and none that is missed.

A thread cannot be ended from outside. A call that nobody waits for any more is *abandoned*: its
thread takes no other call and leaves its place to a new one. Knows nothing of environments.
Invariant: a blocked call holds up neither the event loop that made it nor the calls of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinker_ray.rollouts.host import LimitReachedError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 256
IDLE_S = 10.0
"""How long a thread without work stays."""
SLOW_S = 10.0
"""How long an abandoned call may go on before it counts as one that hangs."""


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[Any]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    began_at: float | None = None
    thread: int = 0
    abandoned_at: float | None = None
    has_ended: bool = False

    def run(self) -> None:
        """Make the call in this thread and tell the event loop how it ended."""
        value, failure = None, None
        try:
            value = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - the border to the user's code
            failure = _in_future(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.settle, value, failure)

    def settle(self, value: Any, failure: Exception | None) -> None:  # noqa: ANN401
        """Settle the outcome, unless nobody waits for it."""
        if self.outcome.done():
            return
        if failure is None:
            self.outcome.set_result(value)
        else:
            self.outcome.set_exception(failure)


class EnvThreads:
    """Runs calls in daemon threads.

    Args:
        limit: How many run at once; those that are abandoned do not count.
        interrupts: Abandoned calls get a ``CancelledError`` at their next instruction of Python.
    """

    def __init__(self, limit: int = MAX_THREADS, *, interrupts: bool = False) -> None:
        self._limit = limit
        self._interrupts = interrupts
        self._changed = threading.Condition()
        self._waiting: deque[_Call] = deque()
        self._abandoned: set[_Call] = set()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def __repr__(self) -> str:
        """Show what runs and what waits."""
        return (
            f"EnvThreads({self._threads - self._idle} busy of {self._limit}, "
            f"{len(self._waiting)} waiting, {len(self._abandoned)} abandoned)"
        )

    @property
    def num_hanging(self) -> int:
        """Calls that go on although nobody has waited for them for a while."""
        now = time.monotonic()
        with self._changed:
            return sum(now - (call.abandoned_at or now) >= SLOW_S for call in self._abandoned)

    async def call(self, function: Callable[[], Any], limit_s: float | None = None) -> Any:  # noqa: ANN401
        """Call a function in a thread, in a copy of this context; cancelling abandons it.

        Raises:
            LimitReachedError: It ran for longer than ``limit_s`` seconds.
        """
        loop = asyncio.get_running_loop()
        call = _Call(function, loop, loop.create_future())
        self._submit(call)
        timer: list[asyncio.TimerHandle] = []

        def look() -> None:
            """End the wait if the limit is reached, counted from when a thread began."""
            assert limit_s is not None  # noqa: S101 - only then is there a timer
            began_at = call.began_at
            left_s = limit_s if began_at is None else began_at + limit_s - time.monotonic()
            if left_s > 0:
                timer[:] = [loop.call_later(left_s, look)]
            elif not call.outcome.done():
                call.outcome.set_exception(LimitReachedError(limit_s, hangs=True))
                self._abandon(call, hangs=True)

        if limit_s is not None:
            timer.append(loop.call_later(limit_s, look))
        try:
            return await call.outcome
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        finally:
            for handle in timer:
                handle.cancel()

    def close(self) -> None:
        """Let idle threads end, and busy ones after their call; idempotent."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _submit(self, call: _Call) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the threads for environments are closed")
            self._waiting.append(call)
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._threads < self._limit:
                self._start()

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="environment", daemon=True).start()

    def _abandon(self, call: _Call, *, hangs: bool = False) -> None:
        with self._changed:
            if call in self._waiting:
                self._waiting.remove(call)
            elif not call.has_ended and call.abandoned_at is None:
                call.abandoned_at = time.monotonic() - (SLOW_S if hangs else 0.0)
                self._abandoned.add(call)
                if self._interrupts:
                    _interrupt(call.thread)
                self._threads -= 1
                if self._waiting and self._threads < self._limit:
                    self._start()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            with contextlib.suppress(asyncio.CancelledError):  # an interruption that came late
                call.run()
            if not self._done(call):
                return

    def _next(self) -> _Call | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout=IDLE_S)
            self._idle -= 1
            if not self._waiting:
                self._threads -= 1
                return None
            call = self._waiting.popleft()
            call.began_at, call.thread = time.monotonic(), threading.get_ident()
            return call

    def _done(self, call: _Call) -> bool:
        """Take note of a call's end; False if its thread has lost its place."""
        with self._changed:
            call.has_ended = True
            self._abandoned.discard(call)
            return call.abandoned_at is None


def _interrupt(thread: int) -> None:
    """Raise ``CancelledError`` in a thread, when it comes to its next instruction of Python."""
    error = ctypes.py_object(asyncio.CancelledError)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


def _in_future(error: BaseException) -> Exception:
    """Make an error that a future takes, and that ends no event loop."""
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        substitute = RuntimeError(f"{type(error).__name__} was raised: {error}")
        substitute.__cause__ = error
        return substitute
    return error

"""Ctrl-C and SIGTERM as a request to stop, answered at a place where nothing is left half done.

The first signal cancels the coroutine that runs, or is kept until blocking work that must not be
torn apart (the start of Ray) is through. The second one ends the process at once: what it started
on this machine ends with it. Knows nothing of what is interrupted. Invariant: no traceback, and the
exit code is 128 plus the signal's number.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = b"\nstopping (once more to force) ...\n"
SHOW_CURSOR = b"\x1b[?25h"
_STDERR = 2


class Interrupted(BaseException):
    """A signal asked this process to stop.

    Attributes:
        signal_number: Which one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + self.signal_number


class InterruptGuard:
    """Holds the signals for the length of a ``with`` block; use it in the main thread."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def blocking(self, work: Callable[[], T]) -> T:
        """Do work that must not be torn apart, then see whether to stop.

        Raises:
            Interrupted: A signal came meanwhile, or before.
        """
        self.check()
        try:
            return work()
        finally:
            self._install()  # the work may have put handlers of its own in place
            self.check()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a new event loop; a signal cancels it.

        Raises:
            Interrupted: A signal came, and the coroutine has ended.
        """
        try:
            return asyncio.run(self._cancellable(work))
        except asyncio.CancelledError:
            self.check()
            raise

    def check(self) -> None:
        """Stop here if a signal came.

        Raises:
            Interrupted: It did.
        """
        if self._received is not None:
            raise Interrupted(self._received)

    async def _cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            if self._received is not None:
                work.close()
                raise asyncio.CancelledError
            return await work
        finally:
            self._cancel = None

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received is not None:
            if os.isatty(_STDERR):
                os.write(_STDERR, SHOW_CURSOR)  # a live status hides it
            os._exit(128 + number)
        self._received = number
        os.write(_STDERR, STOPPING)
        if self._cancel is not None:
            self._cancel()

"""Hearing at once that another process of this machine has ended.

Knows nothing of what the process is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.25
"""Where the system cannot tell by itself, how often to look."""


class ProcessWatch:
    """Calls back once when a process has ended, on the event loop that this is made on.

    Args:
        pid: The process; one that does not exist has ended.
        on_end: What to call.
    """

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self._pid = pid
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        self._timer: asyncio.Handle | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._timer = self._loop.call_soon(self._ended)
        except (AttributeError, OSError):  # not Linux, or an old one
            self._timer = self._loop.call_soon(self._look)
        else:
            self._loop.add_reader(self._descriptor, self._ended)

    def __repr__(self) -> str:
        """Show the process."""
        return f"ProcessWatch({self._pid})"

    def close(self) -> None:
        """Stop watching; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _ended(self) -> None:
        self.close()
        self._on_end()

    def _look(self) -> None:
        try:
            with contextlib.suppress(PermissionError):
                os.kill(self._pid, 0)
        except ProcessLookupError:
            self._ended()
        else:
            self._timer = self._loop.call_later(POLL_S, self._look)

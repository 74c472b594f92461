"""The samples in flight of one sampling session: how many there may be, and whether any ever ends.

Knows nothing of samples. A window is shared by all samples of a session with the same retry
configuration, repetitions included. Patience is counted by the event loop's clock.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tinker_ray.core.line import Line
from tinker_ray.errors import APIConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Window:
    """Lets a number of tasks work at once, and gives up on all when none has ended for too long.

    Args:
        width: Tasks that work at once; None for any number.
        patience_s: How long after the last one ended the others are given up; None for never.
    """

    def __init__(self, width: int | None, patience_s: float | None) -> None:
        self._width = width
        self._patience_s = patience_s
        self._line = Line()
        self._taken = 0
        self._working: set[asyncio.Task[object]] = set()
        self._given_up: set[asyncio.Task[object]] = set()
        self._last_progress = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show how many work and wait."""
        return f"Window({self._taken} of {self._width}, {len(self._line)} waiting)"

    @property
    def is_idle(self) -> bool:
        """Whether nobody works or waits."""
        return self._taken == 0 and not self._line

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Work, when it is this task's turn.

        Raises:
            APIConnectionError: None of the tasks at work has ended for too long.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a window is for tasks")
        if self._has_room() and not self._line:
            self._taken += 1
        else:
            await self._line.wait(self._line.join(), self._give_back)
        self._begin(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._given_up:
                raise
            task.uncancel()
            message = f"no progress for {self._patience_s:g} s: requests appear to be stuck"
            raise APIConnectionError(message) from None
        else:
            self._last_progress = asyncio.get_running_loop().time()
        finally:
            self._end(task)

    def _begin(self, task: asyncio.Task[object]) -> None:
        if not self._working:
            loop = asyncio.get_running_loop()
            self._last_progress = loop.time()
            if self._patience_s is not None:
                self._alarm = loop.call_later(self._patience_s, self._look)
        self._working.add(task)

    def _end(self, task: asyncio.Task[object]) -> None:
        self._given_up.discard(task)
        self._working.discard(task)
        if not self._working and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._give_back()

    def _look(self) -> None:
        """Give up on all who work if none has ended for too long, else look again later."""
        loop = asyncio.get_running_loop()
        due_at = self._last_progress + (self._patience_s or 0.0)
        if loop.time() < due_at:
            self._alarm = loop.call_at(due_at, self._look)
            return
        for task in self._working:
            self._given_up.add(task)
            task.cancel()

    def _has_room(self) -> bool:
        return self._width is None or self._taken < self._width

    def _give_back(self, _: int = 0) -> None:
        self._taken -= 1
        while self._has_room() and (place := self._line.first()) is not None:
            self._taken += 1
            place.let_in.set_result(0)

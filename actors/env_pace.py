"""How many groups of environments run at once on one event loop: as many as it keeps up with.

When environments compute, more groups at once finish no sooner; every turn only takes longer, and
its time limits with it. The lateness of a timer tells how far the loop is behind. Knows nothing of
environments. Invariant: a few groups may always run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIRST_GROUPS = 8.0
LEAST_GROUPS = 4.0
"""So many are needed for one to compute while the others wait for their samples."""
MOST_GROUPS = 1024.0
TICK_S = 0.05
TOO_LATE_S = 1.0
"""Lateness of the loop above which fewer groups may run."""
IN_TIME_S = 0.5
"""Lateness below which more may run."""
ROUND_S = 1.0
"""Time between two changes: what the last one did has to show first."""


@dataclass(slots=True)
class PaceWindow:
    """The decision: more groups while the loop is in time, fewer when it is late.

    Attributes:
        groups: How many may run at once.
        late_s: How late the loop has been of late.
    """

    groups: float = FIRST_GROUPS
    late_s: float = 0.0
    _changed_at: float = 0.0
    _late_at: float = float("-inf")

    def begin(self, now: float) -> None:
        """Hear that a group runs after a time without any: nothing is known of it yet."""
        self._changed_at = now

    def observe(self, late_s: float, running: int, now: float, *, is_wanted: bool) -> None:
        """Take in how late the loop was.

        Args:
            late_s: Seconds.
            running: Groups that run.
            now: The time.
            is_wanted: Whether groups wait.
        """
        self.late_s = max(late_s, 0.8 * self.late_s)
        if self.late_s > IN_TIME_S:
            self._late_at = now
        if now - self._changed_at < ROUND_S:
            return
        if self.late_s > TOO_LATE_S:
            share = min(0.8, max(0.3, TOO_LATE_S / self.late_s))
            self.groups = max(LEAST_GROUPS, share * min(self.groups, running))
            self._changed_at = now
        elif self.late_s < IN_TIME_S and is_wanted:
            self.groups *= 1.5
            self._changed_at = now

    def end(self, began_at: float) -> None:
        """Hear that a group has ended: if the loop was in time all along, there is room for two."""
        if began_at > self._late_at:
            self.groups = min(self.groups + 1, MOST_GROUPS)


class EnvPace:
    """Lets groups in, first come, first served. Belongs to one event loop."""

    def __init__(self) -> None:
        self._window = PaceWindow()
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show how many run and wait, and how late the loop is."""
        return (
            f"EnvPace({self._running} groups of {self._window.groups:.0f}, {len(self._waiting)} "
            f"waiting, {self._window.late_s:.2f} s late)"
        )

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more group may run, and let it."""
        if self._waiting or self._running >= int(self._window.groups):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place in self._waiting:
                    self._waiting.remove(place)
                elif not place.cancelled():
                    self._leave()
                raise
        else:
            self._running += 1
        self._watch()
        began_at = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._window.end(began_at)
            self._leave()

    def _leave(self) -> None:
        self._running -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._running < int(self._window.groups):
            place = self._waiting.popleft()
            if not place.done():
                self._running += 1
                place.set_result(None)

    def _watch(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            if self._running == 1:
                self._window.begin(loop.time())
            self._timer = loop.call_later(TICK_S, self._tick, loop.time() + TICK_S)

    def _tick(self, due: float) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        self._window.observe(now - due, self._running, now, is_wanted=bool(self._waiting))
        self._let_in()
        if self._running:
            self._watch()

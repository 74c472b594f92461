"""What a permit ledger knows of a holder, and when each holder's entry runs out.

Bookkeeping only; the rules are those of :mod:`tinker_ray.limits.permit`.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.limits.share import Want

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Entry:
    """A holder, as its last claim described it, and what it was told."""

    holder: str
    epoch: int
    serial: int = 0
    revision: int = 0
    count: int = 0
    in_use: int = 0
    wants: tuple[Want, ...] = ()
    target: int = 0
    odd: int = 0
    """So many of the target are held in turns."""
    turn_ends_at: float = math.inf
    heard_at: float = -math.inf
    expires_at: float = math.inf
    looked_at: float = math.inf
    """When :class:`Expiries` will look at it next."""
    told_count: int = 0
    told_target: int = 0
    told_unlimited: bool = False

    @property
    def want(self) -> int:
        """What it would like in all."""
        return sum(want.count for want in self.wants)


class Expiries:
    """Entries in the order in which they run out; later ones cost nothing before their time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    @property
    def next_at(self) -> float:
        """Not later than when the next entry runs out; infinity for never."""
        return self._heap[0][0] if self._heap else math.inf

    def plan(self, entry: Entry, expires_at: float) -> None:
        """Let an entry run out at a time, whatever was planned before."""
        entry.expires_at = expires_at
        if expires_at < entry.looked_at:
            self._push(entry)

    def run_out(self, entries: dict[str, Entry], now: float) -> Iterator[Entry]:
        """Give each entry whose time is over."""
        while self._heap and self._heap[0][0] <= now:
            planned, holder = heapq.heappop(self._heap)
            entry = entries.get(holder)
            if entry is None or entry.looked_at != planned:
                continue
            entry.looked_at = math.inf
            if entry.expires_at <= now:
                yield entry
            else:
                self._push(entry)

    def _push(self, entry: Entry) -> None:
        entry.looked_at = entry.expires_at
        if not math.isinf(entry.expires_at):
            heapq.heappush(self._heap, (entry.expires_at, entry.holder))

"""The order of a model's training operations: by sequence number, once, one at a time.

:class:`TurnOrder` decides and is pure; :class:`TrainingQueue` runs what it lets through on the
event loop and watches for gaps that do not close. Knows nothing of promises, ledgers or tensors.

Invariant: operation n starts only after all numbers below n were done, skipped or given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class TurnOrder(Generic[T]):
    """Puts items into the order of their numbers.

    Attributes:
        next_seq: The lowest number that has not come.
    """

    def __init__(self, first_seq: int = 1) -> None:
        self.next_seq = first_seq
        self._held: dict[int, T | None] = {}

    def is_past(self, seq_id: int) -> bool:
        """Whether a number had its turn, or is taken."""
        return seq_id < self.next_seq or seq_id in self._held

    @property
    def has_gap(self) -> bool:
        """Whether items wait for a number that has not come."""
        return any(item is not None for item in self._held.values())

    def admit(self, seq_id: int, item: T) -> list[T]:
        """Take an item; return the items whose turn has come, in order."""
        self._held[seq_id] = item
        return self._advance()

    def skip(self, seq_id: int) -> list[T]:
        """Mark a number as used by nothing; return the items whose turn has come."""
        if not self.is_past(seq_id):
            self._held[seq_id] = None
        return self._advance()

    def abandon_gap(self) -> list[T]:
        """Give up every held item and go on after the last of them; return them in order."""
        held = [item for _, item in sorted(self._held.items(), key=_seq) if item is not None]
        self.next_seq = max([self.next_seq, *(seq_id + 1 for seq_id in self._held)])
        self._held.clear()
        return held

    def _advance(self) -> list[T]:
        ready: list[T] = []
        while self.next_seq in self._held:
            item = self._held.pop(self.next_seq)
            self.next_seq += 1
            if item is not None:
                ready.append(item)
        return ready


def _seq(held: tuple[int, object]) -> int:
    return held[0]


class Operation(Protocol):
    """Something that waits for its turn; neither method raises."""

    async def run(self) -> None:
        """Do it, and settle its promise."""

    async def give_up(self, reason: str) -> None:
        """Settle its promise with a failure."""


class TrainingQueue:
    """The operations of one model.

    Args:
        gap_timeout_s: How long an operation waits for a missing number before it fails.
    """

    def __init__(self, *, gap_timeout_s: float) -> None:
        self._gap_timeout_s = gap_timeout_s
        self._order: TurnOrder[Operation] = TurnOrder()
        self._ready: deque[Operation] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._given_up: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._awaited_seq = 0

    def is_past(self, seq_id: int) -> bool:
        """Whether a number had its turn, or is taken."""
        return self._order.is_past(seq_id)

    def submit(self, seq_id: int | None, operation: Operation) -> None:
        """Take an operation; one without a number has its turn now."""
        if seq_id is None:
            self._start([operation])
        else:
            self._start(self._order.admit(seq_id, operation))

    def skip(self, seq_id: int) -> None:
        """Mark a number as used by a request that was rejected."""
        self._start(self._order.skip(seq_id))

    def close(self) -> None:
        """Stop watching; what runs goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ready.clear()

    def _start(self, ready: Sequence[Operation]) -> None:
        self._ready.extend(ready)
        if self._ready and self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        self._watch_gap()

    async def _work(self) -> None:
        while self._ready:
            await self._ready.popleft().run()
        self._worker = None

    def _watch_gap(self) -> None:
        if self._timer is not None and self._awaited_seq == self._order.next_seq:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order.has_gap:
            self._awaited_seq = self._order.next_seq
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._gap_timeout_s, self._abandon_gap)

    def _abandon_gap(self) -> None:
        self._timer = None
        missing = self._order.next_seq
        reason = (
            f"not done: the operation with seq_id {missing} did not arrive within "
            f"{self._gap_timeout_s:g} s, and this one comes after it"
        )
        for operation in self._order.abandon_gap():
            task = asyncio.get_running_loop().create_task(operation.give_up(reason))
            self._given_up.add(task)
            task.add_done_callback(self._given_up.discard)

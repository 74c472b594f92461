"""Letting numbered visitors through in the order of their numbers: one at a time, or in groups.

Order is data: visitors may arrive in any order, from any task. Numbers that can no longer come are
passed over with :meth:`Turnstile.advance_to`. The members of a group, whose numbers follow each
other, go through side by side when it is the group's turn, the first one after all others that are
there: what waits for the first on the other side then finds the whole group.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.errors import StaleHandleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(eq=False, slots=True)
class _Visitor:
    """Somebody who waits, and the numbers of their group."""

    number: int
    group: range
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Turnstile:
    """Opens for ``first``, then for each next number when its predecessor has left."""

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._floor = first
        self._waiting: dict[int, _Visitor] = {}
        self._by_group: defaultdict[int, dict[int, _Visitor]] = defaultdict(dict)
        self._group_start = first
        self._inside: set[int] = set()
        self._left: set[int] = set()

    def __repr__(self) -> str:
        """Show whose turn it is and who waits."""
        return f"Turnstile(next={self._next}, waiting={sorted(self._waiting)})"

    @property
    def next_number(self) -> int:
        """Whose turn it is: all numbers below have had theirs, or will not come."""
        return self._next

    @asynccontextmanager
    async def turn(self, number: int, group: range | None = None) -> AsyncIterator[None]:
        """Hold the turn of a number; it passes on when the block is left, whatever happened in it.

        Args:
            number: Of the visitor.
            group: The numbers that go through side by side; by default the number alone.

        Raises:
            StaleHandleError: The number has had its turn, or somebody waits with it.
        """
        used = number < self._next or number in self._left
        if used or number in self._waiting or number in self._inside:
            message = f"number {number} was used before: the next turn is {self._next}"
            raise StaleHandleError(message)
        visitor = _Visitor(number, group or range(number, number + 1))
        self._waiting[number] = visitor
        self._by_group[visitor.group.start][number] = visitor
        self._open()
        try:
            await visitor.opened.wait()
        except asyncio.CancelledError:
            if visitor.opened.is_set():
                self._leave(number)
            else:
                self._forget(visitor)
                self._open()
            raise
        try:
            yield
        finally:
            self._leave(number)

    def advance_to(self, number: int) -> None:
        """Give up on all numbers below ``number`` that have not come; never goes back."""
        if number > self._floor:
            self._floor = number
            self._open()

    def _leave(self, number: int) -> None:
        self._inside.discard(number)
        if number >= self._next:
            self._left.add(number)
        self._open()

    def _open(self) -> None:
        self._pass_over()
        starts = {self._group_start, self._next}
        if self._next <= self._floor:  # where a group begins whose first numbers will not come?
            starts |= {visitor.group.start for visitor in self._waiting.values()}
        for start in sorted(starts & self._by_group.keys()):
            for visitor in list(self._by_group[start].values()):
                if self._may_enter(visitor):
                    self._forget(visitor)
                    self._inside.add(visitor.number)
                    self._group_start = start
                    visitor.opened.set()

    def _forget(self, visitor: _Visitor) -> None:
        del self._waiting[visitor.number]
        group = self._by_group[visitor.group.start]
        del group[visitor.number]
        if not group:
            del self._by_group[visitor.group.start]

    def _pass_over(self) -> None:
        """Move on to the first number that has not had its turn and may still have it."""
        while True:
            if self._next in self._left:
                self._left.discard(self._next)
                self._next += 1
            elif self._next < self._floor and self._next not in self._inside:
                present = {*self._waiting, *self._inside, *self._left, self._floor}
                following = min(number for number in present if number >= self._next)
                if following == self._next:
                    return
                self._next = following
            else:
                return

    def _may_enter(self, visitor: _Visitor) -> bool:
        if not all(number in visitor.group for number in self._inside):
            return False
        if visitor.number != visitor.group.start:
            return visitor.group.start <= self._next <= visitor.number
        others = range(visitor.number + 1, visitor.group.stop)
        return visitor.number == self._next and not any(
            number in self._waiting or number in self._inside for number in others
        )

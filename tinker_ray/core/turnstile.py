"""Letting numbered visitors through one at a time, in the order of their numbers.

Order is data: visitors may arrive in any order, from any task. Numbers that can no longer come are
passed over with :meth:`Turnstile.advance_to`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tinker_ray.errors import StaleHandleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turnstile:
    """Opens for ``first``, then for each next number when its predecessor has left."""

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._floor = first
        self._waiting: dict[int, asyncio.Event] = {}
        self._inside = False

    def __repr__(self) -> str:
        """Show whose turn it is and who waits."""
        return f"Turnstile(next={self._next}, waiting={sorted(self._waiting)})"

    @property
    def next_number(self) -> int:
        """Whose turn it is."""
        return self._next

    @asynccontextmanager
    async def turn(self, number: int) -> AsyncIterator[None]:
        """Hold the turn of a number; it passes on when the block is left, whatever happened in it.

        Raises:
            StaleHandleError: The number has had its turn, or somebody waits with it.
        """
        if number < self._next or number in self._waiting:
            message = f"number {number} was used before: the next turn is {self._next}"
            raise StaleHandleError(message)
        opened = self._waiting[number] = asyncio.Event()
        self._open()
        try:
            await opened.wait()
        except asyncio.CancelledError:
            del self._waiting[number]
            if opened.is_set():
                self._leave(number)
            raise
        del self._waiting[number]
        try:
            yield
        finally:
            self._leave(number)

    def advance_to(self, number: int) -> None:
        """Give up on all numbers below ``number`` that have not come; never goes back."""
        self._floor = max(self._floor, number)
        self._open()

    def _leave(self, number: int) -> None:
        self._inside = False
        self._next = max(self._next, number + 1)
        self._open()

    def _open(self) -> None:
        if self._inside:
            return
        if self._next < self._floor:
            self._next = min((n for n in self._waiting if n < self._floor), default=self._floor)
        event = self._waiting.get(self._next)
        if event is not None:
            self._inside = True
            event.set()

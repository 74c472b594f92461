"""Waiting in line: tasks that are let in one by one, in the order in which they came.

Does not know what for. Invariant: what was taken for a task that is cancelled at the moment when it
is let in is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(eq=False, slots=True)
class Place:
    """A place in a line; ``let_in`` becomes the number of bytes that were taken for it."""

    num_bytes: int
    let_in: asyncio.Future[int]


class Line:
    """Tasks that wait to be let in, one by one."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    def join(self, num_bytes: int = 0) -> Place:
        """Take the last place."""
        place = Place(num_bytes, asyncio.get_running_loop().create_future())
        self._places.append(place)
        return place

    async def wait(self, place: Place, withdraw: Callable[[int], None]) -> int:
        """Return what was taken; a task that is cancelled when it was just let in gives it back."""
        try:
            return await place.let_in
        except asyncio.CancelledError:
            if place in self._places:
                self._places.remove(place)
            elif _was_let_in(place):
                withdraw(place.let_in.result())
            raise

    def first(self) -> Place | None:
        """Remove and return the first place whose task still waits; None if there is none."""
        while self._places:
            place = self._places.popleft()
            if not place.let_in.done():
                return place
        return None

    def dissolve(self, reason: Callable[[], Exception]) -> None:
        """Send everybody away, each with an exception of their own."""
        while (place := self.first()) is not None:
            place.let_in.set_exception(reason())


def _was_let_in(place: Place) -> bool:
    future = place.let_in
    return future.done() and not future.cancelled() and future.exception() is None

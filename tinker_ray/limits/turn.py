"""Taking turns at what cannot be divided evenly: who has one of the odd ones, and who is next.

Five permits for seven holders, or 400 for 2 000: some have one more than the others. So that these
are not always the same, an odd one is held for a time, a turn, and then passed on. Invariants:
there are never more turns than odd ones, and whoever waits gets a turn before anybody gets a second
one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GRACE_S = 2.0
"""A holder passes its turn on by itself; so long after the end it is taken from it."""


class Turns:
    """The turns of one label's holders."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._line: dict[str, None] = {}

    def __repr__(self) -> str:
        """Show who has a turn, and how many wait."""
        return f"Turns({len(self._ends)} at it, {len(self._line)} waiting)"

    @property
    def insist_at(self) -> float:
        """When :meth:`arrange` will end a turn that was not passed on; infinity for never."""
        if not self._line:
            return math.inf
        return min(self._ends.values(), default=math.inf) + GRACE_S

    def end(self, holder: str) -> float | None:
        """When a holder's turn ends; None if it has none."""
        return self._ends.get(holder)

    def arrange(self, unmet: Sequence[str], odd: int, now: float, turn_s: float) -> None:
        """Give turns to as many as there are odd ones.

        Args:
            unmet: Those who want more than they have without a turn.
            odd: How many turns there are.
            now: The time.
            turn_s: How long a turn that begins now lasts.
        """
        wanting = set(unmet)
        self._ends = {name: end for name, end in self._ends.items() if name in wanting}
        self._line = {name: None for name in self._line if name in wanting}
        self._line.update((name, None) for name in unmet if name not in self._ends)
        over = [name for name, end in self._ends.items() if end + GRACE_S <= now]
        for name in over[: len(self._line)]:
            del self._ends[name]
            self._line[name] = None
        while len(self._ends) > odd:
            name, _ = self._ends.popitem()
            self._line = {name: None, **self._line}
        while len(self._ends) < odd and self._line:
            self._begin(now + turn_s)

    def pass_on(self, holder: str, now: float, turn_s: float, *, back: bool) -> str:
        """End a holder's turn and give it to the next; return whose turn it is now.

        Args:
            holder: Who has the turn.
            now: The time.
            turn_s: How long the next turn lasts.
            back: Whether the holder goes to the end of the line, rather than out of it.

        Returns:
            The next in line, which may be the same holder; empty for nobody.
        """
        del self._ends[holder]
        if back:
            self._line[holder] = None
        return self._begin(now + turn_s) if self._line else ""

    def _begin(self, end: float) -> str:
        name = next(iter(self._line))
        del self._line[name]
        self._ends[name] = end
        return name

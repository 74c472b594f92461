"""How a ledger's permits are divided at present: levels, turns, and what is asked of all holders.

Decides nothing about who has what; it tells what each should have. The levels are worked out for
all at once, now and then; a single holder's share follows from them at no cost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinker_ray.limits.claim import Terms
from tinker_ray.limits.share import ALL_MET, NOTHING, Level, levels
from tinker_ray.limits.turn import Turns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tinker_ray.limits.entry import Entry

PATIENCE_S = 120.0
"""A holder that holds nothing keeps its place in line for so long without a word."""
TURNS_PER_S = 50
"""Permits that are passed on in a second, at most; each costs about three messages."""
SHORTEST_TURN_S = 2.0
ODD_MATTERS_BELOW = 8
"""Odd permits go round only among holders with fewer than this."""
LARGEST_BLOCK = 8
LONGEST_IDLE_S = 1.0
SHORTEST_IDLE_S = 0.05
IDLE_PER_S = 400
"""Idle permits that may be given back in a second, if all of them change hands all the time."""


class Division:
    """What each holder should have.

    Args:
        ttl_s: How long a lease lasts.
    """

    def __init__(self, ttl_s: float) -> None:
        self.terms = Terms(ttl_s, max(PATIENCE_S, 2 * ttl_s))
        self.insist_at = math.inf
        """When a turn ends that its holder does not pass on."""
        self._levels: dict[str, Level] = {}
        self._turns: dict[str, Turns] = {}
        self._turn_s = SHORTEST_TURN_S

    def __repr__(self) -> str:
        """Show the levels."""
        return f"Division({self._levels}, {self._turns})"

    @property
    def is_exceeded(self) -> bool:
        """Whether more is wanted than there is."""
        return any(found is not ALL_MET for found in self._levels.values())

    def work_out(self, entries: Collection[Entry], limit: int, now: float) -> None:
        """Divide the limit by what all holders want."""
        wants: dict[str, list[int]] = {}
        weights: dict[str, float] = {}
        num_active = 0
        for entry in entries:
            num_active += bool(entry.wants)
            for want in entry.wants:
                wants.setdefault(want.label, []).append(want.count)
                weights[want.label] = max(weights.get(want.label, 0.0), want.weight)
        self._turn_s = max(SHORTEST_TURN_S, limit / TURNS_PER_S)
        self._levels = levels(limit, wants, weights)
        self._arrange_turns(entries, now)
        is_ample = len(entries) <= limit
        block = max(1, min(LARGEST_BLOCK, limit // max(4 * num_active, 1)))
        idle_s = LONGEST_IDLE_S
        if self.is_exceeded or not is_ample:  # others wait for what lies idle
            block = 1
            idle_s = min(idle_s, max(SHORTEST_IDLE_S, min(limit, num_active) / IDLE_PER_S))
        elif block == 1:
            idle_s = self.terms.ttl_s
        self.terms = Terms(self.terms.ttl_s, self.terms.patience_s, block, idle_s, is_ample)

    def aim(self, entry: Entry, *, is_late: bool) -> None:
        """Set a holder's share.

        Args:
            entry: The holder.
            is_late: Whether others wait already: then a label that nothing was divided for yet
                gets nothing before the next division.
        """
        entry.odd, entry.turn_ends_at = 0, math.inf
        target = 0
        for want in entry.wants:
            found = self._levels.get(want.label) or (NOTHING if is_late else ALL_MET)
            target += found.share(want.count)
            turns = self._turns.get(want.label)
            end = None if turns is None else turns.end(entry.holder)
            if end is not None:
                entry.odd += 1
                entry.turn_ends_at = min(entry.turn_ends_at, end)
        entry.target = target + entry.odd

    def labels(self, entry: Entry) -> tuple[tuple[str, float], ...]:
        """A holder's share label by label, not rounded; empty if it wants no more than one."""
        if len(entry.wants) <= 1:
            return ()
        return tuple(
            (want.label, min(want.count, self._levels.get(want.label, ALL_MET).exact))
            for want in entry.wants
        )

    def pass_turns_on(self, entry: Entry, now: float) -> Iterator[str]:
        """End the turns of a holder whose time is over, or who wants no more than the others.

        Yields:
            Whose turn it is now.
        """
        wants = {want.label: want.count for want in entry.wants}
        for label, turns in self._turns.items():
            end = turns.end(entry.holder)
            if end is None:
                continue
            is_unmet = wants.get(label, 0) > self._levels[label].height
            if not is_unmet or end <= now + self._turn_s / 8:
                yield turns.pass_on(entry.holder, now, self._turn_s, back=is_unmet)

    def _arrange_turns(self, entries: Collection[Entry], now: float) -> None:
        unmet: dict[str, list[str]] = {}
        for entry in entries:
            for want in entry.wants:
                found = self._levels[want.label]
                if found.odd and want.count > found.height:
                    unmet.setdefault(want.label, []).append(entry.holder)
        self._turns = {label: self._turns.get(label, Turns()) for label in unmet}
        self.insist_at = math.inf
        for label, turns in self._turns.items():
            found = self._levels[label]
            turn_s = self._turn_s if found.height < ODD_MATTERS_BELOW else math.inf
            turns.arrange(unmet[label], found.odd, now, turn_s)
            self.insist_at = min(self.insist_at, turns.insist_at)

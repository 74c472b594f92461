"""Groups that wait to be run again, and which of them are kept apart.

When a worker dies, any of the groups that it ran may be what it died of, and nobody says which. A
group under which workers die again and again is a suspect. No two suspects run on one worker, so
that the guilty one uses up its own budget and not that of the others, which run to their end.

Knows nothing of other failures. Invariant: a group waits here at most once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tinker_ray.rollouts.roster import Roster

SUSPECT_AFTER: Final = 2
"""Workers that die under a group before it is a suspect; one, where the budget ends there."""


class Retrying:
    """The queue, first come first served among those that a worker is free for.

    Args:
        budget: How many workers may die under a group that is run again.
    """

    def __init__(self, budget: int) -> None:
        self._suspect_after = max(1, min(SUSPECT_AFTER, budget))
        self._plain: deque[int] = deque()
        self._suspects: deque[int] = deque()

    def __repr__(self) -> str:
        """Show who waits."""
        return f"Retrying({list(self._plain)}, suspects={list(self._suspects)})"

    def __len__(self) -> int:
        """Count the groups."""
        return len(self._plain) + len(self._suspects)

    def suspects(self, lost_workers: int) -> bool:
        """Whether a group is a suspect after so many workers died under it."""
        return lost_workers >= self._suspect_after

    def add(self, group: int, lost_workers: int) -> None:
        """Let a group wait under which so many workers died."""
        (self._suspects if self.suspects(lost_workers) else self._plain).append(group)

    def remove(self, groups: Collection[int]) -> None:
        """Forget groups, wherever they are."""
        self._plain = deque(group for group in self._plain if group not in groups)
        self._suspects = deque(group for group in self._suspects if group not in groups)

    def place(self, roster: Roster) -> tuple[int, str] | None:
        """Take out the next group and name the worker for it; None if none can start."""
        worker = roster.freest()
        if worker is not None and self._plain:
            return self._plain.popleft(), worker
        apart = roster.freest_without_suspect() if self._suspects else None
        return None if apart is None else (self._suspects.popleft(), apart)

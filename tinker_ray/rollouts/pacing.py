"""How far rollouts may run ahead of training: the pace at which groups are started.

Theory of operation. The consumer trains on groups in the order in which it gets them,
``groups_per_step`` of them at a time, and publishes a version of the policy after each step. So
the nth group is trained at version ``first + n // groups_per_step``, and is stale by the
difference to the version that drew it. Groups are started only while each of them can still be
fresh enough::

    started - dropped < (version - first + max_staleness + 1) * groups_per_step

With a staleness of 0 this is the synchronous loop: the groups of a step start when its version is
published. Groups that wait for the consumer wait in the order of their versions, so that one that
others overtook may still be in time; if there is no place for it in the queue, it is not delivered.

Knows nothing of workers or samplers. Invariant: no group is delivered that is staler than allowed.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import itemgetter

from tinker_ray.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Pacing:
    """How the groups of a run keep step with training.

    Attributes:
        groups_per_step: Groups that the consumer trains on at each version of the policy.
        max_staleness: How many versions may lie between a group's policy and the one that is
            trained with it; 0 is on-policy.
        oversample: Groups that run beyond those that a step needs; when the step has its groups, so
            many of the slowest are cancelled. A step uses up as many more builders.

    Raises:
        ConfigurationError: A number is out of its range.
    """

    groups_per_step: int
    max_staleness: int = 0
    oversample: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.groups_per_step < 1:
            message = f"groups_per_step={self.groups_per_step!r}: a step needs at least one group"
            raise ConfigurationError(message)
        for name in ("max_staleness", "oversample"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigurationError(f"{name}={value!r} must not be negative")


class Pace:
    """The count of a run against its pacing.

    Args:
        pacing: None lets groups start as there is room, and none be stale.
        version: Of the policy when the run begins.

    Attributes:
        version: The newest that was published.
    """

    def __init__(self, pacing: Pacing | None = None, version: int = 0) -> None:
        self.version = version
        self._pacing = pacing
        self._first = version
        self._under_way_or_delivered = 0
        self._taken = 0
        self._queue: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        """Show the counts."""
        return (
            f"Pace({self._pacing}, version={self.version}, first={self._first}, "
            f"counted={self._under_way_or_delivered}, taken={self._taken}, queue={self._queue})"
        )

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound on the groups that wait for the consumer."""
        return self._pacing is not None

    @property
    def may_start(self) -> bool:
        """Whether one more group may start."""
        if self._pacing is None:
            return True
        limit = self._limit(self._pacing)
        wanted = limit + self._pacing.oversample
        return self._taken + len(self._queue) < limit and self._under_way_or_delivered < wanted

    def publish(self, version: int) -> bool:
        """Hear of a version; False if it is not newer."""
        if version <= self.version:
            return False
        self.version = version
        return True

    def start(self) -> None:
        """Count a group that is started for the first time."""
        self._under_way_or_delivered += 1

    def drop(self) -> None:
        """Take back a group that was started: another one may start in its place."""
        self._under_way_or_delivered -= 1

    def place(self, version: int) -> int | None:
        """Find the place of a group in the queue for the consumer; None if it would be too stale.

        If there is none now, there is none later.
        """
        if self._pacing is None:
            return len(self._queue)
        place = bisect_right(self._queue, version, key=itemgetter(0))
        moved = [version, *(behind for behind, _ in self._queue[place:])]
        most = self._pacing.max_staleness
        if self.version - version > most or any(
            self._trained_at(place + offset) - one > most for offset, one in enumerate(moved)
        ):
            return None
        return place

    def deliver(self, group: int, version: int, place: int) -> bool:
        """Put a group into the queue; True if it completes a step."""
        self._queue.insert(place, (version, group))
        num_delivered = self._taken + len(self._queue)
        return self._pacing is not None and num_delivered % self._pacing.groups_per_step == 0

    def take(self, group: int) -> int | None:
        """Count a group that the consumer takes, and say how stale it is; None if it is unknown."""
        for place, (version, queued) in enumerate(self._queue):
            if queued == group:
                staleness = max(self.version, self._trained_at(0)) - version
                del self._queue[place]
                self._taken += 1
                return staleness
        return None

    def staleness(self, version: int) -> int:
        """Say how stale a group is that would be taken next."""
        return max(self.version, self._trained_at(0)) - version

    @property
    def oversample(self) -> int:
        """How many of the slowest groups to end when a step is complete."""
        return 0 if self._pacing is None else self._pacing.oversample

    def _trained_at(self, place: int) -> int:
        if self._pacing is None:
            return self.version
        return self._first + (self._taken + place) // self._pacing.groups_per_step

    def _limit(self, pacing: Pacing) -> int:
        steps = self.version - self._first + pacing.max_staleness + 1
        return steps * pacing.groups_per_step

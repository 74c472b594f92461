"""What became of the groups of a run, in numbers.

Knows nothing of how that was decided. Invariant: ``dispatched == delivered + dropped + open``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.rollouts.event import DropReason
    from tinker_ray.rollouts.failure import FailureKind


@dataclass(slots=True)
class Account:
    """What became of the groups of a run.

    Attributes:
        dispatched: Groups that were offered.
        delivered: Groups that reached the consumer's queue.
        dropped: Groups that did not, by reason.
        details: The words of the first drop of each reason.
        retries: Attempts beyond each group's first, by why the one before failed.
        fenced: Events of attempts that had already lost their race.
        peak_in_flight: Most attempts that ran at once.
        staleness: Groups that the consumer took, by how many versions old their policy is then.
    """

    dispatched: int = 0
    delivered: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    details: dict[DropReason, str] = field(default_factory=dict)
    retries: Counter[FailureKind] = field(default_factory=Counter)
    fenced: int = 0
    peak_in_flight: int = 0
    staleness: Counter[int] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """Groups that have not ended."""
        return self.dispatched - self.delivered - self.dropped.total()

    @property
    def retried(self) -> int:
        """Attempts beyond each group's first."""
        return self.retries.total()

"""What a process and the cluster's limits say to each other: one message each for everything.

A :class:`Statement` carries the claims for both kinds of permits, and what the process has met
of pauses and knows of the window, so that a ledger that starts again learns it from the first that
talk. A
:class:`Ruling` is the answer, or news that nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.limits.backoff import BackoffNotice
    from tinker_ray.limits.claim import Claim, Grant


@dataclass(frozen=True, slots=True)
class Statement:
    """From a process.

    Attributes:
        permits: Of dispatching: requests under way.
        slots: Of the window: samples sent and not answered.
        sent_at: By its own clock; the receiver tells from it how long the message was under way.
        pause: What it met itself. What it only heard of is not said again.
        at_work: Samples that the service has; in a pause those that it had when it began.
        num_rejected: The 429s that it ever met.
        window: The samples that the service can hold, as far as it knows; 0 if it does not.
        num_accepted: The samples that the service ever accepted from it.
    """

    permits: Claim
    slots: Claim
    sent_at: float
    pause: BackoffNotice
    at_work: int = 0
    num_rejected: int = 0
    window: int = 0
    num_accepted: int = 0

    @property
    def holder(self) -> str:
        """Who says it."""
        return self.permits.holder


@dataclass(frozen=True, slots=True)
class Ruling:
    """To a process.

    Attributes:
        holder: To whom.
        pause: What holds for everybody.
        permits: To dispatch, if there is anything new.
        slots: Of the window, if there is anything new.
        window: The samples that the service can hold; 0 while that is not known.
        num_accepted: The samples that the service ever accepted, per process: how much it is known
            to bear.
    """

    holder: str
    pause: BackoffNotice
    permits: Grant | None = None
    slots: Grant | None = None
    window: int = 0
    num_accepted: int = 0

    def after(self, older: Ruling | None) -> Ruling:
        """Return one that says what this one and an older one, which was not told yet, say."""
        if older is None:
            return self
        return replace(
            self,
            permits=older.permits if self.permits is None else self.permits,
            slots=older.slots if self.slots is None else self.slots,
        )

"""Telling people why their operations wait: once a minute, in the service's words if it has some.

Pure but for the logging. What waits for a sampler is told at once; training operations wait for
room as a matter of course, so that only a pause of a quarter of an hour is news.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

ACTIVE = "active"
TELL_AGAIN_S = 60.0
TRAINING_GRACE_S = 900.0

_CAPACITY = "the service is short of capacity"
_SAMPLER_REASONS = {
    "paused_rate_limit": "too many weights are sampled from at once",
    "paused_capacity": _CAPACITY,
}
_TRAINING_REASONS = {
    "paused_rate_limit": "too many models are trained at once",
    "paused_capacity": _CAPACITY,
}


class QueueLog:
    """Hears of the queue's state with each answer that is no result yet.

    Args:
        subject: What waits, for people.
        now: The time in seconds.
        grace_s: How long a pause may last before it is told of.
        reasons: What the states mean, where the service does not say.
    """

    def __init__(
        self,
        subject: str,
        now: Callable[[], float],
        *,
        grace_s: float = 0.0,
        reasons: dict[str, str] | None = None,
    ) -> None:
        self._subject = subject
        self._now = now
        self._grace_s = grace_s
        self._reasons = _SAMPLER_REASONS if reasons is None else reasons
        self._state = ACTIVE
        self._since = 0.0
        self._told_at = -math.inf

    @classmethod
    def of_training(cls, subject: str, now: Callable[[], float]) -> QueueLog:
        """Make the log of a model's operations."""
        return cls(subject, now, grace_s=TRAINING_GRACE_S, reasons=_TRAINING_REASONS)

    def on_state(self, state: str, reason: str | None = None) -> None:
        """Take in a state; warn if it is a pause that has lasted and was not told of lately."""
        now = self._now()
        if state != self._state:
            self._state, self._since = state, now
        if state == ACTIVE or now - self._since < self._grace_s:
            return
        if now - self._told_at < TELL_AGAIN_S:
            return
        self._told_at = now
        why = reason or self._reasons.get(state, "unknown")
        logger.warning("%s is paused by the service: %s", self._subject, why)

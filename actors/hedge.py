"""When a sample is asked for a second time, elsewhere: pure; the time comes with the events.

A sample is repeated once, when it has taken longer than a fixed time and than nearly all of the
recent ones, so that a service that is slow as a whole is not asked twice for everything. Invariant:
each sample is named at most once.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

QUANTILE = 0.95
"""Of the recent durations: what has taken longer is slow."""
REMEMBERED = 200
"""Durations that count as recent."""
ENOUGH = 20
"""Durations before they say anything."""


class Hedge(Generic[T]):
    """Names the samples that are slow.

    Args:
        after_s: Seconds that a sample may take in any case.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._line: deque[tuple[float, T]] = deque()
        self._delay_s: float | None = after_s

    def __repr__(self) -> str:
        """Show how long a sample may take."""
        return f"Hedge(delay_s={self.delay_s():g}, watching={len(self._line)})"

    def sent(self, sample: T, now: float) -> None:
        """Note that a sample is on its way; the time never goes back."""
        self._line.append((now, sample))

    def answered(self, duration_s: float) -> None:
        """Note how long an answer took."""
        self._durations.append(duration_s)
        self._delay_s = None

    def delay_s(self) -> float:
        """Return how long a sample may take now."""
        if self._delay_s is None:
            self._delay_s = self._after_s
            if len(self._durations) >= ENOUGH:
                slow = sorted(self._durations)[int(QUANTILE * len(self._durations))]
                self._delay_s = max(self._after_s, slow)
        return self._delay_s

    def due(self, now: float) -> list[T]:
        """Name the samples that have taken too long, answered or not; each is named once."""
        found = []
        while self._line and self._line[0][0] + self.delay_s() <= now:
            found.append(self._line.popleft()[1])
        return found

    def wake_at(self) -> float | None:
        """Return when the next sample may have taken too long; None if there is none."""
        return self._line[0][0] + self.delay_s() if self._line else None

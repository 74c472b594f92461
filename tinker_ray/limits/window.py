"""How many samples may be at work in a service that says only "too many" and never how many.

Learns from 429s: the samples at work when the first one came are what the service can hold. From
then on there is a limit, which gives way when it proves too high and is tried a little higher when
it has held for long. Knows neither clocks nor who the samples belong to. Invariant: without a 429
the limit never falls.
"""

from __future__ import annotations

import math

HOLD_S = 10.0
"""Seconds without a 429 before a limit is tried higher."""
LONGEST_HOLD_S = 300.0
"""The same, after a try that failed again and again: each one doubles it up to this."""
FIRST_DECREASE = 0.98
"""A limit that has held and proves too high becomes this part of it, or of what was at work."""
DECREASE = 0.9
"""The same, if the limit before was too high as well."""
INCREASE_PER_S = 0.01
"""A limit that is tried higher grows by this part of itself in a second, by one sample at least."""
DOUBLING_S = 10.0
"""The growth doubles each time that it went well for so long: the limit may be far too low."""
LARGEST_INCREASE_PER_S = 0.08
SAME_S = 2.0
"""429s within this time of the first are one event: answers to what was under way already."""


class Window:
    """A limit for the samples at work, after additive increase and multiplicative decrease.

    While full, the limit grows once ``hold_s`` has passed since the last 429. A 429 that the growth
    itself provoked puts the limit back to what had held, and the next try comes later.

    Example::

        window.on_rejected(now, at_work)     # limit: what was at work
        window.limit(now, full=True)         # read, and grown if it is time

    Source: the rule is that of TCP's congestion avoidance, RFC 5681 section 3.1; the longer and
    longer holds are ours, since every 429 costs a pause of a second.
    """

    def __init__(self, most: int, *, hold_s: float = HOLD_S) -> None:
        """Start without a limit of its own.

        Args:
            most: The limit is never above it.
            hold_s: How long a limit holds before it is tried higher.
        """
        self._most = most
        self._first_hold_s = hold_s
        self._hold_s = hold_s
        self._has_held = True
        self._limit: float = math.inf
        self._proven: float = math.inf
        self._rejected_at = -math.inf
        self._grown_at = -math.inf

    def __repr__(self) -> str:
        """Show the state."""
        known = "none yet" if math.isinf(self._limit) else f"{self._limit:.1f}"
        return f"Window({known} of {self._most}, held for {self._hold_s:g} s)"

    @property
    def is_known(self) -> bool:
        """Whether the service has ever said that it was full."""
        return not math.isinf(self._limit)

    def on_rejected(self, now: float, at_work: int) -> bool:
        """Take in a 429.

        Args:
            now: When it was heard of.
            at_work: Samples that the service had accepted and not answered.

        Returns:
            Whether the limit changed.
        """
        if now < self._rejected_at + SAME_S:
            return False
        before = self._limit
        self._rejected_at = self._grown_at = now
        if not self.is_known:
            self._limit = self._proven = max(at_work, 1)
        elif self._limit > self._proven:  # the growth was too much
            self._limit = self._proven
            self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S)
        else:
            part = FIRST_DECREASE if self._has_held else DECREASE
            self._limit = self._proven = max(1.0, part * min(self._limit, at_work))
            self._hold_s = self._first_hold_s
            self._has_held = False
        return self._limit != before

    def raise_to(self, at_work: int) -> None:
        """Take in that the service holds so many: the first 429 was understood too cautiously."""
        self._limit = self._proven = max(self._limit, at_work)

    def restore(self, limit: int, now: float) -> None:
        """Take over what another object has learnt; it has to hold anew before it grows."""
        self._limit = self._proven = limit
        self._rejected_at = self._grown_at = now

    def limit(self, now: float, *, full: bool) -> int:
        """Return the limit; grow it first if it has held long enough.

        Args:
            now: The time.
            full: Whether the limit is what keeps samples from being sent.
        """
        if not self.is_known:
            return self._most
        if not full:
            self._grown_at = max(self._grown_at, now)
        elif now > max(self._grown_at, self._rejected_at + self._hold_s):
            since = max(self._grown_at, self._rejected_at + self._hold_s)
            self._proven = max(self._proven, self._limit - self._step())
            self._has_held = True
            self._limit += (now - since) * self._step()
            self._grown_at = now
        return max(1, min(self._most, int(self._limit)))

    def _step(self) -> float:
        """How much the limit grows in a second."""
        grown_s = max(0.0, self._grown_at - self._rejected_at - self._hold_s)
        rate = min(INCREASE_PER_S * 2 ** (grown_s // DOUBLING_S), LARGEST_INCREASE_PER_S)
        return max(1.0, rate * self._limit)

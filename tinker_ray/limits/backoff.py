"""What a process does after the service said that it is full (429).

Does not judge statuses and sends nothing. Invariants: nothing is dispatched during a pause, and at
most ``width`` requests are under way at once while throttled. A pause never gets shorter.

One process that meets a 429 pauses all: it makes a :class:`BackoffNotice`, others merge it. A
notice holds a duration, since clocks of different processes are not comparable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_S = 1.0
"""The upstream SDK's pause after a 429."""
LARGE_PROMPT_PAUSE_S = 5.0
"""Its pause after a 429 on a large prompt."""
LARGE_PROMPT_BYTES = 128 * 1024
"""A prompt estimated above this is large."""
THROTTLED_WIDTH = 10
"""Dispatches at once after a pause, as in the upstream SDK."""
THROTTLED_S = 10.0
"""How long after the last pause, as in the upstream SDK."""
THROTTLED_BYTE_FACTOR = 20
"""A prompt counts this many times in the byte budget while paused or throttled: upstream's rule."""
LONGEST_PAUSE_S = 300.0
"""A longer ``Retry-After`` is taken for this much."""
SLACK_S = 0.05
"""A pause is this much longer than it has to be, so that the 429s of the next moment change nothing
and nobody has to be told of each."""

_UNSEEDED = SystemRandom()


@dataclass(frozen=True, slots=True)
class Open:
    """Dispatch as permits allow."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Dispatch nothing before ``until``."""

    until: float


@dataclass(frozen=True, slots=True)
class Throttled:
    """Keep at most ``width`` dispatches under way, before ``until``."""

    width: int
    until: float


State: TypeAlias = Open | Paused | Throttled


@dataclass(frozen=True, slots=True)
class BackoffNotice:
    """What other processes have to know.

    Attributes:
        pause_s: Seconds from the time of the notice to the end of the pause, jitter not included;
            negative if it is over, minus infinity if there was none.
    """

    pause_s: float


class Backoff:
    """Open, then paused by a 429, then throttled, then open again.

    The upstream SDK's rule: a 429 pauses for 1 s, or 5 s if its prompt was large, counted anew from
    each 429; after the pause at most 10 dispatches are under way until 10 s have passed without
    another. In addition ``Retry-After`` makes a pause longer, a pause ends for each process at a
    moment of its own, and the state is shared.

    Example::

        if backoff.on_rejected(now, est_bytes, retry_after_s):
            tell_the_others(backoff.notice(now))     # there: backoff.merge(notice, now)
    """

    def __init__(
        self,
        random: Callable[[], float] = _UNSEEDED.random,
        *,
        width: int = THROTTLED_WIDTH,
        jitter: float = 0.05,
    ) -> None:
        """Start open.

        Args:
            random: Gives numbers in [0, 1); by default others in each process, whatever is seeded.
            width: Dispatches at once while throttled.
            jitter: A pause is prolonged by up to this part of it.
        """
        self._random = random
        self._width = width
        self._jitter = jitter
        self._until = -math.inf
        self._jitter_s = 0.0
        self._num_rejected = 0
        self._num_accepted = 0

    def __repr__(self) -> str:
        """Show the state."""
        return (
            f"Backoff(pause until {self._until:.1f} + {self._jitter_s:.2f} s, "
            f"{self._num_rejected} rejected, {self._num_accepted} accepted since)"
        )

    @property
    def width(self) -> int:
        """Dispatches at once while throttled."""
        return self._width

    def on_rejected(self, now: float, est_bytes: int, retry_after_s: float | None = None) -> bool:
        """Take in a 429.

        Args:
            now: When it arrived.
            est_bytes: The estimated size of the prompt.
            retry_after_s: What the service asked for, if it did.

        Returns:
            Whether the other processes have to be told.
        """
        self._num_rejected += 1
        self._num_accepted = 0
        pause_s = PAUSE_S if est_bytes <= LARGE_PROMPT_BYTES else LARGE_PROMPT_PAUSE_S
        asked_s = min(retry_after_s or 0.0, LONGEST_PAUSE_S)
        if now + max(pause_s, asked_s) <= self._until:
            return False
        self._pause(now, max(pause_s, asked_s) + SLACK_S)
        return True

    def pause(self, now: float, seconds: float) -> bool:
        """Pause for another reason than a 429.

        Returns:
            Whether the other processes have to be told.
        """
        if now + seconds <= self._until:
            return False
        self._pause(now, min(seconds, LONGEST_PAUSE_S) + SLACK_S)
        return True

    def on_accepted(self, now: float) -> None:
        """Take in that a dispatch went through; only time ends the throttled phase."""
        if not isinstance(self.state(now), Open):
            self._num_accepted += 1

    def state(self, now: float) -> State:
        """Return what is allowed now."""
        resume_at = self._until + self._jitter_s
        if now < resume_at:
            return Paused(resume_at)
        if now < resume_at + THROTTLED_S:
            return Throttled(self._width, resume_at + THROTTLED_S)
        return Open()

    def budget_bytes(self, now: float, est_bytes: int) -> int:
        """What a prompt of an estimated size takes from the byte budget at present."""
        return est_bytes if isinstance(self.state(now), Open) else est_bytes * THROTTLED_BYTE_FACTOR

    def notice(self, now: float) -> BackoffNotice:
        """Return what to tell the other processes."""
        return BackoffNotice(self._until - now)

    def merge(self, notice: BackoffNotice, now: float) -> bool:
        """Take in the notice of another process; the later end of a pause wins.

        Returns:
            Whether those who know only what was known here have to be told.
        """
        gain_s = now + notice.pause_s - self._until
        if gain_s > 0:
            self._pause(now, notice.pause_s)
        return gain_s > SLACK_S

    def _pause(self, now: float, pause_s: float) -> None:
        if pause_s > 0 and not isinstance(self.state(now), Paused):
            self._jitter_s = self._random() * self._jitter * pause_s
        self._until = now + pause_s

"""The permits that one process holds, and when it has to talk to the ledger about them.

The other side of :mod:`tinker_ray.limits.permit`, as pure as that: the owner asks
:meth:`Lease.poll` for the message to send, sends it, and hands the answer to :meth:`Lease.apply`.
Taking and returning a permit needs no message. Invariant: nothing is taken under a lease that the
ledger may have given to others by now.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tinker_ray.limits.permit import Claim, Grant
from tinker_ray.limits.share import Want

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 8
"""Permits are asked for in multiples of this."""


class Lease:
    """Permits held by one process.

    Messages are few: one as soon as there is more to do than permits (for a block at least), one
    when the ledger asks for permits back and some are idle, one when half of the permits stayed
    idle for ``idle_s``, and otherwise one each third of the lease's time to renew it. A holder with
    nothing to do lets its lease run out in silence. One claim is under way at a time; a later one,
    after ``retry_s`` without an answer, makes the answer to the former void.

    Example::

        if lease.acquire(now): ...              # dispatch, then lease.release()
        if claim := lease.poll(now, waiting):   # after each change, and at lease.wake_at()
            lease.apply(await ledger.claim(claim), now)
    """

    def __init__(
        self,
        holder: str,
        *,
        block: int = BLOCK,
        idle_s: float = 1.0,
        retry_s: float = 1.0,
        drift: float = 0.1,
    ) -> None:
        """Start with no permits.

        Args:
            holder: A name that no other process has or had.
            block: Permits to ask for at once, at least.
            idle_s: How long half of the permits may lie idle.
            retry_s: How long to wait for an answer before asking again.
            drift: The part of a lease's time that is left unused, for clocks that run at different
                rates and for a process that is stopped between its last look at the clock and a
                dispatch.
        """
        self.holder = holder
        self._block = block
        self._idle_s = idle_s
        self._retry_s = retry_s
        self._drift = drift
        self._held = 0
        self._target = 0
        self._in_use = 0
        self._spent = 0
        self._peak = 0
        self._need = 0
        self._want = 0
        self._epoch = 0
        self._serial = 0
        self._revision = 0
        self._ttl_s = math.inf
        self._sent_at = -math.inf
        self._expires_at = -math.inf
        self._answered = True
        self._crowded = False
        self._closed = False
        self._fenced = False

    def __repr__(self) -> str:
        """Show the state."""
        flags = [
            word
            for word, is_so in (
                ("crowded", self._crowded),
                ("asking", not self._answered),
                ("closed", self._closed),
                ("fenced", self._fenced),
            )
            if is_so
        ]
        return (
            f"Lease({self.holder}: uses {self._in_use} of {self._held}, share {self._target}, "
            f"until {self._expires_at:.1f}{''.join(', ' + word for word in flags)})"
        )

    @property
    def in_use(self) -> int:
        """Permits taken and not returned, whatever became of the lease."""
        return self._in_use

    @property
    def fenced(self) -> bool:
        """Whether the ledger holds this process for dead: it will never get a permit again."""
        return self._fenced

    def held(self, now: float) -> int:
        """The permits in the lease; none once it has run out."""
        return self._held if now < self._expires_at else 0

    def capacity(self, now: float) -> int:
        """How many permits may be in use now: those held, less those that others wait for."""
        return 0 if self._closed else min(self.held(now), self._target) - self._spent

    def available(self, now: float) -> int:
        """How often :meth:`acquire` would succeed now."""
        return max(0, self.capacity(now) - self._in_use)

    def overdue(self, now: float) -> int:
        """Permits in use that the lease does not cover: what they are used for should be ended."""
        return max(0, self._in_use - self.held(now))

    def acquire(self, now: float) -> bool:
        """Take a permit if there is one; to be returned by :meth:`release`."""
        if not self.available(now):
            return False
        self._in_use += 1
        self._peak = max(self._peak, self._in_use)
        return True

    def observe(self, in_use: int) -> None:
        """Note how many permits are in use, for an owner that counts them itself.

        Such an owner keeps within :meth:`capacity` and calls neither :meth:`acquire` nor
        :meth:`release`.
        """
        self._in_use = in_use
        self._peak = max(self._peak, in_use)

    def release(self) -> None:
        """Return a permit, for the next one in this process or, if others wait, for them."""
        if not self._in_use:
            message = "a permit was released that nobody had acquired"
            raise ValueError(message)
        self._in_use -= 1
        if self._crowded:
            self._spent = min(self._spent + 1, max(0, self._held - self._in_use))

    def close(self) -> None:
        """Take no more permits; :meth:`poll` gives back the idle ones, and the rest as it comes."""
        self._closed = True

    def poll(self, now: float, waiting: int, labels: Sequence[Want] = ()) -> Claim | None:
        """Return the claim to send now, if one is due.

        Args:
            now: The time.
            waiting: How many more permits the process could use at once.
            labels: What it could use in all, those in use included, label by label.
        """
        self._lapse(now)
        need = self._need = self._in_use + (0 if self._closed else waiting)
        if self._fenced or not self._due(now, need):
            return None
        blocks = -(-max(self._peak, need) // self._block)
        want = need if self._closed or self._crowded else blocks * self._block
        kept = max(self._in_use, min(self._target, want))
        self._held = min(self._held - self._spent, kept)
        self._spent = 0
        self._peak = self._in_use
        self._want = want
        self._serial += 1
        self._revision = 0
        self._sent_at = now
        self._answered = False
        wants = _spread(want, labels)
        return Claim(self.holder, self._serial, self._epoch, self._held, self._in_use, want, wants)

    def apply(self, grant: Grant, now: float) -> bool:
        """Take in a grant, asked for or not.

        Returns:
            Whether it counts; False for one that is late, doubled or void.
        """
        self._lapse(now)
        if grant.serial != self._serial or self._fenced:
            return False
        if not grant.fenced and grant.revision <= self._revision:
            return False
        self._fenced = grant.fenced
        self._answered = True
        self._revision = grant.revision
        self._epoch = grant.epoch
        self._held, self._target = grant.count, grant.target
        self._crowded = grant.crowded
        self._spent = min(self._spent, max(0, self._held - self._in_use)) if self._crowded else 0
        self._ttl_s = grant.ttl_s
        self._expires_at = self._sent_at + grant.ttl_s * (1 - self._drift)
        self._lapse(now)
        return True

    def wake_at(self) -> float:
        """When to call :meth:`poll` if nothing happens before; infinity for never.

        Never later than the end of the lease, so that :meth:`capacity` is looked at in time.
        """
        if self._fenced:
            return math.inf
        runs_out_at = self._expires_at if self._held else math.inf
        if not self._answered:
            return min(self._sent_at + self._retry_s, runs_out_at)
        return min(self._look_at(self._need), runs_out_at)

    def _due(self, now: float, need: int) -> bool:
        if not self._answered:
            return now >= self._sent_at + self._retry_s
        if self._spent or self._held > max(self._in_use, 0 if self._closed else self._target):
            return True
        if need > min(self._held, self._target) and self._grew(need):
            return True
        return now >= self._look_at(need)

    def _look_at(self, need: int) -> float:
        """When a claim is due although nothing happens: to renew, or to give back what is idle."""
        if not (self._held or self._want or need):
            return math.inf
        half_idle = max(self._peak, need, self._block) <= self._held // 2
        return self._sent_at + (self._idle_s if half_idle else self._ttl_s / 3)

    def _grew(self, need: int) -> bool:
        """Whether the ledger should hear of a greater need before the next renewal.

        If it gave all that was wanted last time, at once. If it did not, permits are scarce: then
        the need only bears on how they are shared, and is worth a message when it has doubled.
        """
        left_short = self._held < self._want
        return need >= 2 * self._want if left_short else need > self._want

    def _lapse(self, now: float) -> None:
        """Drop a lease that has run out, and with it any answer that is under way."""
        if now >= self._expires_at and (self._held or self._target):
            self._held = self._target = self._spent = self._want = 0
            self._serial += 1
            self._answered = True


def _spread(want: int, labels: Sequence[Want]) -> tuple[Want, ...]:
    """Make what is wanted by label add up to what is wanted in all; the largest takes the rest."""
    if not labels:
        return ()
    largest = max(range(len(labels)), key=lambda index: labels[index].count)
    rest = want - sum(item.count for item in labels)
    return tuple(
        replace(item, count=max(0, item.count + rest)) if index == largest else item
        for index, item in enumerate(labels)
    )

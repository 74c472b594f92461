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

from tinker_ray.limits.claim import UNLIMITED, Claim, Grant, Terms
from tinker_ray.limits.share import Want

if TYPE_CHECKING:
    from collections.abc import Sequence

RENEW_AT = 0.5
"""A lease is renewed after this part of its time. With a tenth of it left unused, 0.4 of it remain
to be answered in: 4 s of 10, twice what a new ledger takes to answer."""
RENEW_LATE_AT = 0.85
"""A lease that is about to be given back as a whole is renewed only if that takes so long."""
LONGEST_RETRY_S = 4.0


class Lease:
    """Permits held by one process.

    Messages are few: one as soon as there is more to do than permits (for a block at least), one
    when the ledger asks for permits back or a turn is over, and some are idle, one when permits
    stayed idle for too long, and otherwise one each half of the lease's time to renew it. A holder
    with nothing to do lets its lease run out in silence. One claim is under way at a time; a later
    one, after ``retry_s`` without an answer, then twice that and so on, makes the answer to the
    former void.

    Example::

        if lease.acquire(now): ...              # dispatch, then lease.release()
        if claim := lease.poll(now, waiting):   # after each change, and at lease.wake_at()
            lease.apply(await ledger.claim(claim), now)
    """

    def __init__(
        self,
        holder: str,
        *,
        block: int = 8,
        idle_s: float = 1.0,
        retry_s: float = 1.0,
        drift: float = 0.1,
    ) -> None:
        """Start with no permits.

        Args:
            holder: A name that no other process has or had.
            block: Permits to ask for at once at least, until the ledger says otherwise.
            idle_s: How long permits may lie idle, until the ledger says otherwise.
            retry_s: How long to wait for an answer before asking again.
            drift: The part of a lease's time that is left unused, for clocks that run at different
                rates and for a process that is stopped between its last look at the clock and a
                dispatch.
        """
        self.holder = holder
        self._terms = Terms(math.inf, math.inf, block, idle_s, is_ample=False)
        self._first_retry_s = self._retry_s = retry_s
        self._drift = drift
        self._held = 0
        self._target = 0
        self._odd = 0
        self._turn_ends_at = math.inf
        self._in_use = 0
        self._peak = 0
        self._told_in_use = 0
        self._told_want = 0
        self._need = 0
        self._want = 0
        self._wants: tuple[Want, ...] = ()
        self._labels: dict[str, float] = {}
        self._epoch = 0
        self._serial = 0
        self._revision = 0
        self._sent_at = -math.inf
        self._idle_since = -math.inf
        self._expires_at = -math.inf
        self._answered = True
        self._invited = 0
        self._unlimited = False
        self._closed = False
        self._fenced = False

    def __repr__(self) -> str:
        """Show the state."""
        flags = [
            word
            for word, is_so in (
                ("asking", not self._answered),
                ("unlimited", self._unlimited),
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

    @property
    def is_known(self) -> bool:
        """Whether the ledger has ever answered."""
        return self._epoch > 0

    @property
    def unlimited(self) -> bool:
        """Whether no limit is known, so that any number may be in use."""
        return self._unlimited

    @property
    def is_ample(self) -> bool:
        """Whether a permit that cannot be used at the moment may be kept: there is one for each."""
        return self._terms.is_ample

    @property
    def invited(self) -> int:
        """Permits that the ledger keeps ready for this process, which has to claim them."""
        return self._invited

    @property
    def labels(self) -> dict[str, float]:
        """The share label by label, if there is more than one."""
        return self._labels

    def held(self, now: float) -> int:
        """The permits in the lease; none once it has run out."""
        return self._held if now < self._expires_at else 0

    def share(self, now: float) -> int:
        """How many permits the process may keep: less than it holds if others wait."""
        return self._target - (self._odd if now >= self._turn_ends_at else 0)

    def capacity(self, now: float) -> int:
        """How many permits may be in use now: those held, less those that others wait for."""
        if self._closed or self._fenced:
            return 0
        return UNLIMITED if self._unlimited else min(self.held(now), self.share(now))

    def available(self, now: float) -> int:
        """How often :meth:`acquire` would succeed now."""
        return max(0, self.capacity(now) - self._in_use)

    def overdue(self, now: float) -> int:
        """Permits in use that the lease does not cover: what they are used for should be ended."""
        return 0 if self._unlimited else max(0, self._in_use - self.held(now))

    def acquire(self, now: float) -> bool:
        """Take a permit if there is one; to be returned by :meth:`release`."""
        if not self.available(now):
            return False
        self._in_use += 1
        self._peak = max(self._peak, self._in_use)
        return True

    def release(self) -> None:
        """Return a permit, for the next one in this process or, if others wait, for them.

        Raises:
            ValueError: None is in use.
        """
        if not self._in_use:
            raise ValueError("a permit was released that nobody had acquired")
        self._in_use -= 1

    def close(self) -> None:
        """Take no more permits; :meth:`poll` gives back the idle ones, and the rest as it comes."""
        self._closed = True

    def freeze(self) -> None:
        """Take no more permits until a claim that is still to be sent is answered.

        For a process that has learnt what the ledger may not have known when it granted.
        """
        self._void()
        self._target = self._odd = 0
        self._turn_ends_at = math.inf
        self._held = self._in_use if self._unlimited else self._held
        self._unlimited = False

    def poll(self, now: float, waiting: int, labels: Sequence[Want] = ()) -> Claim | None:
        """Return the claim to send now, if one is due; see :meth:`claim`."""
        return self.claim(now, waiting, labels) if self.is_due(now, waiting, labels) else None

    def is_due(self, now: float, waiting: int, labels: Sequence[Want] = ()) -> bool:
        """Whether a claim should be sent now; to be asked after each change."""
        self._lapse(now)
        need = self._need = self._in_use + (0 if self._closed else waiting)
        if need >= self._held:
            self._idle_since = now
        return not self._fenced and self._is_due(now, need, labels)

    def claim(self, now: float, waiting: int, labels: Sequence[Want] = ()) -> Claim:
        """Return a claim to send now, due or not, and give up what it says is given up.

        Args:
            now: The time.
            waiting: How many more permits the process could use at once.
            labels: What it could use in all, those in use included, label by label.
        """
        self._lapse(now)
        need = self._in_use + (0 if self._closed else waiting)
        block = self._terms.block
        rounded = -(-max(self._peak, need) // block) * block
        want = need if self._closed or block == 1 else rounded
        kept = max(self._in_use, min(self.share(now), want))
        self._held = self._in_use if self._unlimited else min(self._held, kept)
        self._peak = self._told_in_use = self._in_use
        self._want = self._told_want = want
        self._wants = _spread(want, labels)
        self._invited = 0
        self._retry_s = self._first_retry_s if self._answered else self._next_retry_s()
        self._void()
        self._sent_at, self._answered = now, False
        return Claim(
            self.holder, self._serial, self._epoch, self._held, self._in_use, want, self._wants
        )

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
        self._want = min(self._want, grant.want)
        self._told_want = min(self._told_want, grant.want)
        self._odd = grant.odd
        self._turn_ends_at = self._sent_at + grant.turn_s if grant.odd else math.inf
        self._labels = dict(grant.labels)
        self._terms, self._unlimited = grant.terms, grant.unlimited
        self._expires_at = self._sent_at + grant.terms.ttl_s * (1 - self._drift)
        if now >= self._expires_at:
            self._lapse(now)
            self._invited = grant.count
        return True

    def wake_at(self) -> float:
        """When to call :meth:`poll` if nothing happens before; infinity for never.

        Never later than the end of the lease, so that :meth:`capacity` is looked at in time.
        """
        if self._fenced:
            return math.inf
        runs_out_at = self._expires_at if self._held and not self._unlimited else math.inf
        if not self._answered:
            return min(self._sent_at + self._retry_s, runs_out_at)
        return min(self._look_at(self._need), self._turn_ends_at, runs_out_at)

    def _is_due(self, now: float, need: int, labels: Sequence[Want]) -> bool:
        if not self._answered:
            return now >= self._sent_at + self._retry_s
        if self._unlimited or self._invited:
            return self._invited > 0
        if self._gives_back(now, need):
            return True
        if need > min(self._held, self.share(now)) and self._grew(need, labels):
            return True
        return now >= self._look_at(need)

    def _gives_back(self, now: float, need: int) -> bool:
        """Whether the ledger counts on less: on fewer permits, uses or wants than there were."""
        if self._held > max(self._in_use, 0 if self._closed else self.share(now)):
            return True
        if self._told_in_use > max(self._held, self._in_use):
            return True
        return self._told_want > 0 and not need and not self._held

    def _look_at(self, need: int) -> float:
        """When a claim is due although nothing happens: to renew, or to give back what is idle."""
        if self._unlimited or not (self._held or self._want or need):
            return math.inf
        terms = self._terms
        if not self._held:
            return self._sent_at + RENEW_AT * terms.patience_s
        keeps_any = self._target > self._odd
        renew_at = self._sent_at + (RENEW_AT if keeps_any else RENEW_LATE_AT) * terms.ttl_s
        if terms.block == 1:
            return min(renew_at, self._idle_since + terms.idle_s) if need < self._held else renew_at
        half_idle = max(self._peak, need, terms.block) <= self._held // 2
        return self._sent_at + terms.idle_s if half_idle else renew_at

    def _grew(self, need: int, labels: Sequence[Want]) -> bool:
        """Whether the ledger should hear of a greater need before the next renewal.

        If the share is all that was wanted last time, at once. If it is less, permits are scarce,
        and a greater need would not make it larger.
        """
        if len(labels) <= 1:
            return need > self._want and self._want <= self._target
        asked = {want.label: want.count for want in self._wants}
        return any(
            want.count > asked.get(want.label, 0)
            and asked.get(want.label, 0) <= self._labels.get(want.label, self._target)
            for want in labels
        )

    def _next_retry_s(self) -> float:
        return min(2 * self._retry_s, LONGEST_RETRY_S)

    def _void(self) -> None:
        """Let no answer count to what was claimed before."""
        self._serial += 1
        self._revision = 0
        self._answered = True

    def _lapse(self, now: float) -> None:
        """Drop a turn that is over, and a lease that has run out with any answer under way."""
        if now >= self._turn_ends_at:
            self._target, self._odd, self._turn_ends_at = self.share(now), 0, math.inf
        if self._unlimited:
            return
        if now >= self._expires_at and (self._held or self._target):
            if self._held:  # the ledger's entry runs out as well
                self._told_want = 0
            self._held = self._target = self._odd = self._want = 0
            self._turn_ends_at = math.inf
            self._void()


def _spread(want: int, labels: Sequence[Want]) -> tuple[Want, ...]:
    """Make what is wanted by label add up to what is wanted in all; the largest take the change."""
    change = want - sum(item.count for item in labels)
    spread = []
    for item in sorted(labels, key=lambda item: -item.count):
        count = max(0, item.count + change)
        change -= count - item.count
        if count:
            spread.append(replace(item, count=count))
    return tuple(spread)

"""All limits of a cluster, at the place where they are divided: permits, the window, and pauses.

Carries nothing and waits for nothing; see :mod:`tinker_ray.limits.holder` for the other side. Two
ledgers: permits to dispatch (400 at once, 10 after a pause), and slots for samples that were sent
and not answered. The number of slots is not known until the service says no for the first time:
then it is what is at work, as all processes state it in the pause that follows. Invariant: neither
ledger ever grants more than its limit; a window that shrinks drains, and grants nothing until it
has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinker_ray.limits.backoff import SLACK_S, Backoff, BackoffNotice, Open, Paused, Throttled
from tinker_ray.limits.claim import UNLIMITED
from tinker_ray.limits.permit import DISPATCH_LIMIT, TTL_S, PermitLedger
from tinker_ray.limits.statement import Ruling, Statement
from tinker_ray.limits.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinker_ray.limits.claim import Claim, Grant

SLOTS_TTL_S = 40.0
"""Slots of a lost process return after this; its samples go on at the service for a while."""
ALL_ARE_TOLD = 500
"""With no more processes than these, each is told of a pause at once. With more, those who may send
are; the others hear of it before they may."""
CLOCK_DRIFT = 1e-3
"""No two clocks run more differently than by this."""
GROWTH_S = 1.0
"""How often a window that is full is looked at."""


@dataclass(slots=True)
class _Heard:
    """What a process last said."""

    serial: int
    num_rejected: int
    num_accepted: int
    at_work: int
    at: float
    offset_s: float
    """Our clock less its own, and what a message takes at least."""


class ClusterLimits:
    """Divides what the service can take over the processes of a cluster.

    Example::

        ruling = limits.state(statement, now)            # answer the sender with it
        for other in limits.notices(now): ...            # send each to other.holder
        limits.wake_at                                   # when to call notices() without a message
    """

    def __init__(
        self,
        limit: int = DISPATCH_LIMIT,
        *,
        most_at_work: int | None = None,
        ttl_s: float = TTL_S,
        slots_ttl_s: float = SLOTS_TTL_S,
        restarted_at: float | None = None,
    ) -> None:
        """Start with nothing granted.

        Args:
            limit: Dispatches at once.
            most_at_work: Samples at work at once, if there is a limit to begin with.
            ttl_s: How long a lease of permits lasts after each message.
            slots_ttl_s: The same for slots.
            restarted_at: The time now, if another object may have granted leases before.
        """
        self.limit = limit
        self.window = Window(UNLIMITED if most_at_work is None else most_at_work)
        self.backoff = Backoff(lambda: 0.0)
        self.permits = PermitLedger(limit, ttl_s, restarted_at=restarted_at)
        self.slots = PermitLedger(
            UNLIMITED if most_at_work is None else most_at_work,
            slots_ttl_s,
            # Whoever knows of a window says so with the first statement; then it takes longer.
            restarted_at=None if restarted_at is None else restarted_at - slots_ttl_s + ttl_s,
        )
        self._slots_return_at = -math.inf if restarted_at is None else restarted_at + slots_ttl_s
        self._heard: dict[str, _Heard] = {}
        self._num_accepted = 0
        self._untold: dict[str, None] = {}
        self._told_until = -math.inf
        self._learn_at = math.inf
        self._learns_since = math.inf
        """When the news of the first 429 came, until the time of few dispatches is over."""
        self._stated: dict[str, int] = {}
        """What each had at work then, as it said first."""
        self._now = -math.inf

    def __repr__(self) -> str:
        """Show the state."""
        return f"ClusterLimits({self.permits!r}, {self.slots!r}, {self.window!r}, {self.backoff!r})"

    @property
    def wake_at(self) -> float:
        """When :meth:`notices` may have something to say without a message; infinity for never."""
        times = [self.permits.wake_at, self.slots.wake_at, self._learn_at]
        if self._untold:
            times.append(self._now)
        state = self.backoff.state(self._now)
        if isinstance(state, Paused | Throttled):
            times.append(state.until)
        elif self.window.is_known and self.slots.is_exceeded:
            times.append(self._now + GROWTH_S)
        return min(times)

    def state(self, statement: Statement, now: float) -> Ruling:
        """Take in what a process states, and answer it; see also :meth:`notices`."""
        self._pass_time(now)
        holder = statement.holder
        heard = self._heard.get(holder)
        if heard is None or statement.permits.serial > heard.serial:
            self._take_in(statement, heard)
        slots = self.slots.claim(statement.slots, self._now)
        permits = self.permits.claim(self._usable(statement, slots), self._now)
        self._untold.pop(holder, None)
        return Ruling(
            holder, self.backoff.notice(self._now), permits, slots, self._window, self._borne
        )

    def notices(self, now: float) -> list[Ruling]:
        """Return what processes have to be told that did not ask.

        Calling it late or losing a notice costs time only, and in a pause at most what one process
        sends until the service says no to it as well.
        """
        self._pass_time(now)
        permits = {grant.holder: grant for grant in self.permits.notices(self._now)}
        slots = {grant.holder: grant for grant in self.slots.notices(self._now)}
        told = {**self._untold, **dict.fromkeys(permits), **dict.fromkeys(slots)}
        self._untold = {}
        pause = self.backoff.notice(self._now)
        return [
            Ruling(holder, pause, permits.get(holder), slots.get(holder), self._window, self._borne)
            for holder in told
        ]

    def suspend(self, now: float, seconds: float) -> None:
        """Pause everybody, for a reason that was learnt here."""
        self._pass_time(now)
        self.backoff.pause(self._now, seconds)
        self._tell_all()
        self._fit()

    def forget(self, holder: str) -> None:
        """Grant nothing more to a process that is believed dead; its leases run out."""
        self.permits.forget(holder)
        self.slots.forget(holder)
        self._heard.pop(holder, None)

    def inventory(self, now: float) -> dict[str, Any]:
        """Describe who has what."""
        self._pass_time(now)
        return {
            "permits_limit": self.permits.limit,
            "permits_leased": self.permits.leased,
            "permits_in_use": self.permits.in_use,
            "window": self._window,
            "samples_at_work": self._at_work,
            "pause_s": max(self.backoff.notice(self._now).pause_s, 0.0),
            "state": type(self.backoff.state(self._now)).__name__.lower(),
        }

    @property
    def _window(self) -> int:
        return self.slots.limit if self.window.is_known else 0

    @property
    def _borne(self) -> int:
        """The samples that the service has accepted, per process that takes part."""
        return self._num_accepted // max(self.permits.num_holders, 1)

    @property
    def _at_work(self) -> int:
        known = self.slots.holders
        return sum(heard.at_work for holder, heard in self._heard.items() if holder in known)

    def _take_in(self, statement: Statement, heard: _Heard | None) -> None:
        offset_s = self._now - statement.sent_at
        if heard is not None:
            offset_s = min(offset_s, heard.offset_s + CLOCK_DRIFT * (self._now - heard.at))
        age_s = self._now - statement.sent_at - offset_s
        pause = BackoffNotice(statement.pause.pause_s - age_s)
        self.backoff.merge(pause, self._now)
        self._tell_all()
        if statement.window and not self.window.is_known and math.isinf(self._learn_at):
            self.window.restore(statement.window, self._now)
            self.slots.adopt(self._slots_return_at)
        self._num_accepted += statement.num_accepted - (heard.num_accepted if heard else 0)
        if statement.holder not in self._stated and math.isinf(self._learn_at):
            self._learn_late(statement.holder, statement.at_work)
        before = heard.num_rejected if heard else 0
        is_news = heard is not None or pause.pause_s > 0
        if is_news and statement.num_rejected > before and math.isinf(self._learn_at):
            self._learn_at = max(self._now, self._now + self.backoff.notice(self._now).pause_s)
            if not self.window.is_known:
                self._learns_since = self._now
                self.slots.adopt(self._learn_at)
        self._heard[statement.holder] = _Heard(
            statement.permits.serial,
            statement.num_rejected,
            statement.num_accepted,
            statement.at_work,
            self._now,
            offset_s,
        )
        self._fit()

    def _tell_all(self) -> None:
        """Let all be told of a pause that is longer than what they were told before."""
        until = self._now + self.backoff.notice(self._now).pause_s
        if not until > self._told_until + SLACK_S:  # else who was told pauses long enough
            return
        self._told_until = until
        permits, slots = self.permits.holders, self.slots.holders
        told: Iterable[str] = [holder for holder, count in permits.items() if count]
        self._untold = dict.fromkeys(told)
        if len(slots) <= ALL_ARE_TOLD:
            self._untold.update(dict.fromkeys(slots))

    def _pass_time(self, now: float) -> None:
        self._now = max(self._now, now)
        self._fit()
        if len(self._heard) > 2 * self.slots.num_holders + ALL_ARE_TOLD:
            known = self.slots.holders
            self._heard = {key: value for key, value in self._heard.items() if key in known}

    def _fit(self) -> None:
        """Bring both ledgers to the limits of the moment."""
        state = self.backoff.state(self._now)
        is_open = isinstance(state, Open)
        self.permits.resize(self.limit if is_open else min(self.limit, self.backoff.width))
        if self._now >= self._learn_at:
            self._learn()
        if is_open and math.isinf(self._learn_at):
            self._learns_since = math.inf
        if math.isinf(self._learn_at):
            self.slots.resize(self.window.limit(self._now, full=self.slots.is_exceeded))

    def _learn(self) -> None:
        """Make of the pause that is over what it tells of the window."""
        self._learn_at = math.inf
        is_first = not self.window.is_known
        # A window that has not drained yet is not refuted by a 429.
        if self.slots.leased + self.slots.overdue <= self.slots.limit:
            self.window.on_rejected(self._now, self._at_work)
        if not is_first:
            return
        self._stated = {
            holder: heard.at_work
            for holder, heard in self._heard.items()
            if heard.at >= self._learns_since
        }
        if self.slots.num_holders <= ALL_ARE_TOLD:
            self._untold.update(dict.fromkeys(self.slots.holders))

    def _learn_late(self, holder: str, at_work: int) -> None:
        """Take in what a process had at work at the first 429 that says so only now."""
        if math.isinf(self._learns_since):
            return
        self._stated[holder] = at_work
        self.window.raise_to(sum(self._stated.values()))

    def _usable(self, statement: Statement, slots: Grant) -> Claim:
        """Return the claim to permits without those that there are no slots for.

        A process asks for what it could use if it got all the slots that it asks for.
        """
        claim = statement.permits
        if slots.unlimited or slots.fenced:
            return claim
        capacity = min(slots.count, slots.target)
        want = claim.in_use + max(0, capacity - statement.slots.in_use)
        if self.permits.is_ample:
            want = max(want, capacity)
        return claim if want >= claim.want else replace(claim, want=want, labels=())

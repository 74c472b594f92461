"""The ledger of dispatch permits: who may have how many requests under way, over a whole cluster.

Holders (the processes that dispatch) lease permits in blocks, for a time; they spend them without
asking anybody, see :mod:`tinker_ray.limits.lease`. Knows nothing of how messages travel: they may
be lost, late, doubled or out of order. Invariant: the permits of all leases that somebody can still
believe in never add up to more than the limit, whoever dies, the ledger included.

Scarce permits are divided by :func:`tinker_ray.limits.share.fair_shares`.

What makes it hold:

- Messages state what is, not what changes: a :class:`Claim` says how many permits its sender keeps
  and how many it would like, a :class:`Grant` how many it has now. A holder gives permits up before
  it says so, and the ledger counts them as gone only then.
- Claims are numbered. The ledger ignores one that is not newer than the last; a holder ignores an
  answer to any but its last.
- A lease lasts ``ttl_s`` from the arrival of its last claim for the ledger, and a little less from
  the *sending* of that claim for the holder: no two clocks are compared. A lease that ran out is
  another one (another epoch) when its holder is heard again, and starts from nothing.
- A ledger that starts again grants nothing for one ``ttl_s``. Leases that its predecessor granted
  run out in that time, or are taken over from the claims of their holders as they stand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.limits.share import Want, fair_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

DISPATCH_LIMIT = 400
"""Requests to sample that may be under way at once: the upstream SDK's limit for one process."""
TTL_S = 10.0
"""Seconds after which the permits of a lost holder return."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A holder's message: what it has and what it would like.

    Attributes:
        holder: A name that is never used twice: a process that replaces another takes a new one.
        serial: Counts the holder's claims from 1.
        epoch: The lease that ``held`` belongs to; 0 for none.
        held: The permits that the holder keeps.
        in_use: The permits that are being used, for those who watch.
        want: The permits that it would like to hold in all.
        labels: The same, label by label; empty if all are of one kind.
    """

    holder: str
    serial: int
    epoch: int
    held: int
    in_use: int
    want: int
    labels: tuple[Want, ...] = ()

    @property
    def wants(self) -> tuple[Want, ...]:
        """What it would like, label by label."""
        return self.labels or (Want(self.want),)


@dataclass(frozen=True, slots=True)
class Grant:
    """The ledger's message: what a holder has now.

    Attributes:
        holder: To whom.
        serial: Of the last claim heard from it.
        revision: Counts the grants after that claim, so that a late one is told from a newer one.
        epoch: The lease.
        count: The permits in it, all told.
        target: The holder's share at present. If it is below ``count``, others wait: the holder
            gives back the difference as it becomes idle.
        ttl_s: How long the lease lasts, from when the claim was sent.
        crowded: There are more holders in need than permits: each permit is good for one use.
        fenced: The holder was declared dead and gets nothing any more.
    """

    holder: str
    serial: int
    revision: int
    epoch: int
    count: int
    target: int
    ttl_s: float
    crowded: bool = False
    fenced: bool = False


@dataclass(slots=True)
class _Entry:
    holder: str
    epoch: int
    serial: int = 0
    revision: int = 0
    count: int = 0
    in_use: int = 0
    want: int = 0
    wants: tuple[Want, ...] = ()
    target: int = 0
    expires_at: float = math.inf
    waiting_since: int = 0
    """Place in the line of those who have less than their share; 0 outside of it."""
    told_count: int = 0
    told_target: int = 0
    told_crowded: bool = False


class PermitLedger:
    """Leases a fixed number of permits to holders.

    Example::

        grant = ledger.claim(claim, now)         # answer the sender with it
        for other in ledger.notices(now): ...    # send each to other.holder
        ledger.wake_at                           # when to call notices() without a claim
    """

    def __init__(
        self,
        limit: int = DISPATCH_LIMIT,
        ttl_s: float = TTL_S,
        *,
        restarted_at: float | None = None,
    ) -> None:
        """Start with no leases.

        Args:
            limit: The most permits that may be leased at once.
            ttl_s: How long a lease lasts after each claim.
            restarted_at: The time now, if another ledger may have granted leases before.
        """
        self.limit = limit
        self.ttl_s = ttl_s
        self._quiet_until = -math.inf if restarted_at is None else restarted_at + ttl_s
        self._entries: dict[str, _Entry] = {}
        self._forgotten: set[str] = set()
        self._epochs = 0
        self._places = 0
        self._crowded = False
        self._now = -math.inf

    def __repr__(self) -> str:
        """Show the state."""
        leases = ", ".join(
            f"{entry.holder}: {entry.count} (uses {entry.in_use}, wants {entry.want}, "
            f"share {entry.target}, until {entry.expires_at:.1f})"
            for entry in self._entries.values()
        )
        quiet = f", quiet until {self._quiet_until:.1f}" if self._is_quiet else ""
        return f"PermitLedger({self.leased} of {self.limit} leased{quiet}; {leases or 'nobody'})"

    @property
    def leased(self) -> int:
        """Permits in leases that have not run out as far as the ledger was last told the time."""
        return sum(entry.count for entry in self._entries.values())

    @property
    def in_use(self) -> int:
        """Permits that their holders last said they were using."""
        return sum(entry.in_use for entry in self._entries.values())

    @property
    def holders(self) -> Mapping[str, int]:
        """The permits of each holder."""
        return {entry.holder: entry.count for entry in self._entries.values()}

    @property
    def wake_at(self) -> float:
        """When :meth:`notices` may have something to say without a claim; infinity for never."""
        times = [entry.expires_at for entry in self._entries.values() if entry.count]
        if self._is_quiet and self._somebody_waits:
            times.append(self._quiet_until)
        return min(times, default=math.inf)

    def claim(self, claim: Claim, now: float) -> Grant:
        """Take in a claim and answer it; it may give to others too, see :meth:`notices`."""
        self._pass_time(now)
        if claim.holder in self._forgotten:
            return Grant(claim.holder, claim.serial, 0, claim.epoch, 0, 0, self.ttl_s, fenced=True)
        entry = self._entries.get(claim.holder)
        if entry is None:
            self._epochs += 1
            entry = self._entries[claim.holder] = _Entry(claim.holder, self._epochs)
            kept = 0
        else:
            if claim.serial <= entry.serial:
                return self._grant(entry)
            kept = min(claim.held, entry.count) if claim.epoch == entry.epoch else 0
        if self._is_quiet and self.leased - entry.count + claim.held <= self.limit:
            kept = claim.held
        entry.serial, entry.revision = claim.serial, 0
        entry.count, entry.in_use = kept, claim.in_use
        entry.want, entry.wants = claim.want, claim.wants
        entry.expires_at = self._now + self.ttl_s
        self._divide()
        return self._grant(entry)

    def notices(self, now: float) -> list[Grant]:
        """Return what holders have to be told that did not ask.

        That is: permits that were given to a holder which waited for them, and a smaller share to
        one that holds more while others wait. Calling it late or losing a notice costs time only.
        """
        self._pass_time(now)
        self._divide()
        return [
            self._grant(entry)
            for entry in self._entries.values()
            if entry.holder not in self._forgotten and self._has_news_for(entry)
        ]

    def forget(self, holder: str) -> None:
        """Renew nothing for a holder that is believed dead.

        Its permits return when its lease runs out and not at once, because it may run on behind a
        cut link. Whatever it claims later, it gets nothing.
        """
        self._forgotten.add(holder)
        entry = self._entries.get(holder)
        if entry is not None:
            entry.want, entry.wants = 0, ()

    def resize(self, limit: int) -> None:
        """Change the limit; permits above a smaller one return as :meth:`notices` asks for them.

        Until then more than the new limit may be leased, so that holders have to be told before
        they go on: resize in a pause.
        """
        self.limit = limit

    @property
    def _is_quiet(self) -> bool:
        return self._now < self._quiet_until

    @property
    def _somebody_waits(self) -> bool:
        return any(entry.waiting_since for entry in self._entries.values())

    def _pass_time(self, now: float) -> None:
        self._now = max(self._now, now)
        gone = [entry.holder for entry in self._entries.values() if entry.expires_at <= self._now]
        for holder in gone:
            del self._entries[holder]

    def _divide(self) -> None:
        """Work out every share and hand out what is free, the longest waiting first."""
        entries = self._entries.values()
        wants = {entry.holder: entry.wants for entry in entries if entry.want > 0}
        self._crowded = len(wants) > self.limit
        shares = dict.fromkeys(wants, 1) if self._crowded else fair_shares(self.limit, wants)
        for entry in entries:
            share = shares.get(entry.holder, 0)
            entry.target = entry.count if self._is_quiet else share
            self._line_up(entry, short=entry.count < share)
        if self._is_quiet:
            return
        free = self.limit - self.leased
        waiting = [entry for entry in entries if entry.waiting_since]
        for entry in sorted(waiting, key=lambda entry: entry.waiting_since):
            given = max(0, min(free, entry.target - entry.count))
            entry.count += given
            free -= given
            self._line_up(entry, short=entry.count < entry.target)

    def _line_up(self, entry: _Entry, *, short: bool) -> None:
        if short and not entry.waiting_since:
            self._places += 1
            entry.waiting_since = self._places
        elif not short:
            entry.waiting_since = 0

    def _has_news_for(self, entry: _Entry) -> bool:
        if entry.count > entry.told_count:
            return True
        if not entry.count:
            return False
        scarce = self._somebody_waits or self.leased > self.limit
        less = scarce and entry.target < min(entry.told_target, entry.count)
        more = entry.count > entry.told_target < entry.target
        return less or more or (scarce and self._crowded and not entry.told_crowded)

    def _grant(self, entry: _Entry) -> Grant:
        entry.revision += 1
        entry.told_count, entry.told_target = entry.count, entry.target
        entry.told_crowded = self._crowded
        return Grant(
            entry.holder,
            entry.serial,
            entry.revision,
            entry.epoch,
            entry.count,
            entry.target,
            self.ttl_s,
            crowded=self._crowded,
        )

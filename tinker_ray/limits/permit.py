"""The ledger of permits: who may have how many requests under way, over a whole cluster.

Holders (the processes that dispatch) lease permits in blocks, for a time; they spend them without
asking anybody, see :mod:`tinker_ray.limits.lease`. Knows nothing of how messages travel: they may
be lost, late, doubled or out of order. Invariant: the permits of all leases that somebody can still
believe in never add up to more than the limit, whoever dies, the ledger included.

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

What a message costs does not depend on how many holders there are: a claim is answered from the
:class:`~tinker_ray.limits.share.Level` of each label, what is free goes to the first in line, and
the levels are worked out anew only every so often, the more seldom the more holders there are. What
cannot be divided evenly is held in turns (:mod:`tinker_ray.limits.turn`), so that also with more
holders than permits the number of messages depends on time, not on how many samples there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinker_ray.limits.claim import UNLIMITED, Claim, Grant
from tinker_ray.limits.division import Division
from tinker_ray.limits.entry import Entry, Expiries

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Claim", "Grant", "PermitLedger"]

DISPATCH_LIMIT = 400
"""Requests to sample that may be under way at once: the upstream SDK's limit for one process."""
TTL_S = 10.0
"""Seconds after which the permits of a lost holder return."""
INVITED_S = 2.0
"""A holder whose turn comes after a long wait has to claim it within this time."""
FEW_HOLDERS = 32
"""With no more than these, shares are worked out at each message."""
PAUSE_PER_HOLDER_S = 100e-6
"""With more, this much for each goes by between two times: some fifty times what it takes."""


class PermitLedger:
    """Leases a number of permits to holders.

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
            limit: The most permits that may be leased at once; ``UNLIMITED`` until one is known.
            ttl_s: How long a lease lasts after each claim.
            restarted_at: The time now, if another ledger may have granted leases before.
        """
        self.limit = limit
        self.ttl_s = ttl_s
        self._quiet_until = -math.inf if restarted_at is None else restarted_at + ttl_s
        self._was_adopting = restarted_at is not None or limit >= UNLIMITED
        self._was_unlimited = restarted_at is None
        self._entries: dict[str, Entry] = {}
        self._expiries = Expiries()
        self._leased = 0
        self._in_use = 0
        self._overdue = 0
        self._short: dict[str, Entry] = {}
        """Those who have less than their share, the longest waiting first."""
        self._news: dict[str, Entry] = {}
        """Those who may have to be told something."""
        self._division = Division(ttl_s)
        self._divided_at = -math.inf
        self._is_dirty = False
        self._forgotten: set[str] = set()
        self._epochs = 0
        self._now = -math.inf

    def __repr__(self) -> str:
        """Show the state."""
        leases = ", ".join(
            f"{entry.holder}: {entry.count} (uses {entry.in_use}, wants {entry.want}, "
            f"share {entry.target}, until {entry.expires_at:.1f})"
            for entry in self._entries.values()
        )
        quiet = f", quiet until {self._quiet_until:.1f}" if self._now < self._quiet_until else ""
        limit = "any number" if self.limit >= UNLIMITED else self.limit
        return f"PermitLedger({self.leased} of {limit} leased{quiet}; {leases or 'nobody'})"

    @property
    def leased(self) -> int:
        """Permits in leases that have not run out as far as the ledger was last told the time."""
        return self._leased

    @property
    def in_use(self) -> int:
        """Permits that their holders last said they were using."""
        return self._in_use

    @property
    def overdue(self) -> int:
        """Permits in use that no lease covers: of leases that ran out, or from before a limit."""
        return self._overdue

    @property
    def num_holders(self) -> int:
        """Those who were heard of lately."""
        return len(self._entries)

    @property
    def is_scarce(self) -> bool:
        """Whether somebody has less than its share, or more is leased than there is."""
        return bool(self._short) or self._leased > self.limit

    @property
    def is_exceeded(self) -> bool:
        """Whether more is wanted than there is."""
        return self._division.is_exceeded

    @property
    def is_ample(self) -> bool:
        """Whether there is a permit for each holder at least."""
        return self._division.terms.is_ample

    @property
    def holders(self) -> Mapping[str, int]:
        """The permits of each holder."""
        return {entry.holder: entry.count for entry in self._entries.values()}

    @property
    def wake_at(self) -> float:
        """When :meth:`notices` may have something to say without a claim; infinity for never."""
        times = [self._expiries.next_at, self._division.insist_at]
        if self._news:
            times.append(self._now)
        if self._is_dirty:
            times.append(self._divided_at + self._pause_s)
        if self._now < self._quiet_until and self._entries:
            times.append(self._quiet_until)
        return min(times)

    def claim(self, claim: Claim, now: float) -> Grant:
        """Take in a claim and answer it; it may give to others too, see :meth:`notices`."""
        self._pass_time(now)
        if claim.holder in self._forgotten:
            return self._refusal(claim)
        entry = self._entries.get(claim.holder)
        if entry is None:
            self._epochs += 1
            entry = self._entries[claim.holder] = Entry(claim.holder, self._epochs)
            kept = 0
        else:
            if claim.serial <= entry.serial:
                return self._grant(entry)
            kept = min(claim.held, entry.count) if claim.epoch == entry.epoch else 0
        if self._is_adopting and self._leased - entry.count + claim.held <= self.limit:
            kept = claim.held
        self._take_in(entry, claim, kept)
        if not self._divide_if_due():
            self._aim(entry)
            self._hand_out()
        waits = entry.wants and not entry.count
        lasts_s = self._division.terms.patience_s if waits else self.ttl_s
        self._expiries.plan(entry, self._now + lasts_s)
        return self._grant(entry)

    def notices(self, now: float) -> list[Grant]:
        """Return what holders have to be told that did not ask.

        That is: permits that were given to a holder which waited for them, and a smaller share to
        one that holds more while others wait. Calling it late or losing a notice costs time only.
        """
        self._pass_time(now)
        if not self._divide_if_due():
            self._hand_out()
        news, self._news = self._news, {}
        return [self._grant(entry) for entry in news.values() if self._has_news_for(entry)]

    def forget(self, holder: str) -> None:
        """Renew nothing for a holder that is believed dead.

        Its permits return when its lease runs out and not at once, because it may run on behind a
        cut link. Whatever it claims later, it gets nothing.
        """
        self._forgotten.add(holder)
        entry = self._entries.get(holder)
        if entry is not None:
            entry.wants = ()
            self._is_dirty = True

    def resize(self, limit: int) -> None:
        """Change the limit; permits above a smaller one return as :meth:`notices` asks for them.

        Until then more than the new limit may be leased, so that holders have to be told before
        they go on: resize in a pause.
        """
        self._is_dirty |= limit != self.limit
        self.limit = limit

    def adopt(self, until: float) -> None:
        """Grant nothing before a time, and take leases over as their holders state them."""
        self._quiet_until = max(self._quiet_until, until)
        self._is_dirty = True

    @property
    def _is_adopting(self) -> bool:
        return self._now < self._quiet_until or self.limit >= UNLIMITED

    @property
    def _is_unlimited(self) -> bool:
        return self.limit >= UNLIMITED and self._now >= self._quiet_until

    @property
    def _pause_s(self) -> float:
        num_holders = len(self._entries)
        return 0.0 if num_holders <= FEW_HOLDERS else num_holders * PAUSE_PER_HOLDER_S

    def _pass_time(self, now: float) -> None:
        self._now = max(self._now, now)
        for entry in self._expiries.run_out(self._entries, self._now):
            self._set(entry, 0, 0)
            for index in (self._entries, self._short, self._news):
                index.pop(entry.holder, None)
            self._is_dirty |= bool(entry.wants)
        is_adopting = self._is_adopting
        self._is_dirty |= is_adopting != self._was_adopting
        self._was_adopting = is_adopting
        if self._is_unlimited and not self._was_unlimited:  # the quiet time is over
            self._news.update(self._entries)
        self._was_unlimited = self._is_unlimited

    def _take_in(self, entry: Entry, claim: Claim, kept: int) -> None:
        self._set(entry, kept, claim.in_use)
        self._is_dirty |= claim.wants != entry.wants
        entry.serial, entry.revision = claim.serial, 0
        entry.wants, entry.heard_at = claim.wants, self._now
        if entry.odd:
            for successor in self._division.pass_turns_on(entry, self._now):
                if successor in self._entries:
                    self._aim(self._entries[successor])

    def _set(self, entry: Entry, count: int, in_use: int) -> None:
        self._leased += count - entry.count
        self._in_use += in_use - entry.in_use
        self._overdue += max(0, in_use - count) - max(0, entry.in_use - entry.count)
        entry.count, entry.in_use = count, in_use

    def _divide_if_due(self) -> bool:
        due = self._is_dirty and self._now >= self._divided_at + self._pause_s
        if due or self._now >= self._division.insist_at:
            self._divide()
            return True
        return False

    def _divide(self) -> None:
        """Work out every share, and hand out what is free."""
        self._divided_at, self._is_dirty = self._now, False
        entries = self._entries.values()
        if not self._is_adopting:
            self._division.work_out(entries, self.limit, self._now)
        for entry in entries:
            self._aim(entry)
        self._hand_out()
        if self.is_scarce:
            self._news.update(
                (entry.holder, entry)
                for entry in entries
                if entry.count and entry.target != entry.told_target
            )

    def _aim(self, entry: Entry) -> None:
        """Set a holder's share, and put it into the line if it has less."""
        if self._is_adopting:
            entry.target, entry.odd = entry.count, 0
        else:
            self._division.aim(entry, is_late=bool(self._short))
        if entry.count >= entry.target:
            self._short.pop(entry.holder, None)
        else:
            self._short.setdefault(entry.holder, entry)

    def _hand_out(self) -> None:
        """Give what is free to the first in line."""
        if self._is_adopting:
            return
        while self._short and (free := self.limit - self._leased - self._overdue) >= 0:
            entry = next(iter(self._short.values()))
            uncovered = max(0, entry.in_use - entry.count)
            given = min(free + uncovered, entry.target - entry.count)
            if not given:
                return
            self._set(entry, entry.count + given, entry.in_use)
            if entry.count >= entry.target:
                del self._short[entry.holder]
            known_until = max(entry.heard_at + self.ttl_s, self._now + INVITED_S)
            self._expiries.plan(entry, known_until)
            self._news[entry.holder] = entry

    def _has_news_for(self, entry: Entry) -> bool:
        if entry.count > entry.told_count:
            return True
        if self._is_unlimited:
            return not entry.told_unlimited and entry.holder not in self._forgotten
        if not entry.count or entry.holder in self._forgotten:
            return False
        less = self.is_scarce and entry.target < min(entry.told_target, entry.count)
        more = entry.count > entry.told_target < entry.target
        return less or more

    def _refusal(self, claim: Claim) -> Grant:
        terms = self._division.terms
        return Grant(claim.holder, claim.serial, 0, claim.epoch, 0, 0, 0, terms, fenced=True)

    def _grant(self, entry: Entry) -> Grant:
        entry.revision += 1
        entry.told_count, entry.told_target = entry.count, entry.target
        entry.told_unlimited = self._is_unlimited
        return Grant(
            entry.holder,
            entry.serial,
            entry.revision,
            entry.epoch,
            entry.count,
            entry.target,
            entry.want,
            self._division.terms,
            entry.odd,
            max(0.0, entry.turn_ends_at - entry.heard_at) if entry.odd else 0.0,
            self._division.labels(entry),
            unlimited=entry.told_unlimited,
        )

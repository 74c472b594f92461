"""A cluster in one simulated clock: a permit ledger, holders with work to do, and messages between.

Drives the real machines of :mod:`tinker_ray.limits` event by event. A holder has a queue of
samples; each needs a permit for ``dispatch_s``. Links can be cut, holders killed, the ledger
replaced.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tinker_ray.limits import Claim, Grant, Lease, PermitLedger

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Holder:
    """One process."""

    lease: Lease
    queue: int = 0
    done: int = 0
    alive: bool = True
    connected: bool = True
    used_s: float = 0.0
    """Permit seconds."""
    wake_at: float = float("inf")


@dataclass
class PermitCluster:
    """The simulation; :meth:`run` it for a while, look, change something, run it on."""

    num_holders: int
    limit: int = 400
    ttl_s: float = 10.0
    dispatch_s: float = 0.5
    latency_s: float = 0.005
    seed: int = 0
    now: float = 0.0
    messages: int = 0
    in_use: int = 0
    most_in_use: int = 0
    holders: list[Holder] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ledger_wakes_at = float("inf")
        self.ledger: PermitLedger | None = PermitLedger(self.limit, self.ttl_s)
        for index in range(self.num_holders):
            self.holders.append(Holder(Lease(f"holder-{index}")))
        self._by_name = {holder.lease.holder: holder for holder in self.holders}

    @property
    def done(self) -> int:
        return sum(holder.done for holder in self.holders)

    def add_work(self, samples: int, *holders: int) -> None:
        """Put samples into the queues of some holders, or of all."""
        for index in holders or range(len(self.holders)):
            self.holders[index].queue += samples
            self._work(self.holders[index])

    def kill(self, holder: int) -> None:
        """End a process at once."""
        self.holders[holder].alive = False
        self.in_use -= self.holders[holder].lease.in_use

    def stop_ledger(self) -> None:
        """End the ledger's process."""
        self.ledger = None

    def restart_ledger(self) -> None:
        """Start a new one, which knows nothing."""
        self.ledger = PermitLedger(self.limit, self.ttl_s, restarted_at=self.now)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), event))

    def _work(self, holder: Holder) -> None:
        if not holder.alive:
            return
        while holder.queue and holder.lease.acquire(self.now):
            holder.queue -= 1
            self.in_use += 1
            self.most_in_use = max(self.most_in_use, self.in_use)
            taken_s = self.dispatch_s * self._random.uniform(0.5, 1.5)
            self._at(self.now + taken_s, partial(self._finish, holder, taken_s))
        claim = holder.lease.poll(self.now, holder.queue)
        if claim is not None:
            self.messages += 1
            if holder.connected:
                self._at(self.now + self.latency_s, lambda: self._claimed(claim, holder))
        self._sleep(holder)

    def _sleep(self, holder: Holder) -> None:
        wake_at = holder.lease.wake_at()
        if wake_at != holder.wake_at and wake_at < float("inf"):
            holder.wake_at = wake_at
            self._at(wake_at, lambda: self._wake(holder, wake_at))

    def _wake(self, holder: Holder, planned: float) -> None:
        if holder.wake_at == planned:
            holder.wake_at = float("inf")
            self._work(holder)

    def _finish(self, holder: Holder, taken_s: float) -> None:
        if holder.alive:
            holder.lease.release()
            self.in_use -= 1
            holder.done += 1
            holder.used_s += taken_s
            self._work(holder)

    def _claimed(self, claim: Claim, holder: Holder) -> None:
        if self.ledger is None or not holder.connected:
            return
        self._send(self.ledger.claim(claim, self.now))
        self._notify()

    def _notify(self) -> None:
        if self.ledger is None:
            return
        for grant in self.ledger.notices(self.now):
            self.messages += 1
            self._send(grant)
        if self.ledger.wake_at not in {self._ledger_wakes_at, float("inf")}:
            self._ledger_wakes_at = self.ledger.wake_at
            self._at(self._ledger_wakes_at, partial(self._wake_ledger, self._ledger_wakes_at))

    def _wake_ledger(self, planned: float) -> None:
        if self._ledger_wakes_at == planned:
            self._ledger_wakes_at = float("inf")
            self._notify()

    def _send(self, grant: Grant) -> None:
        self._at(self.now + self.latency_s, lambda: self._granted(grant))

    def _granted(self, grant: Grant) -> None:
        holder = self._by_name[grant.holder]
        if holder.alive and holder.connected:
            holder.lease.apply(grant, self.now)
            self._work(holder)

"""Holders and a ledger whose messages the test may lose, double, delay and reorder.

The real machines of :mod:`tinker_ray.limits`, one event a method, each process with a clock of its
own zero and rate. :meth:`PermitWorld.check` holds what must be true after every event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinker_ray.limits import Claim, Grant, Lease, PermitLedger

LIMIT = 20
TTL_S = 10.0

Fate = Literal["answered", "answer late", "late", "doubled", "lost"]
"""What becomes of a claim and its answer."""
FATES: tuple[Fate, ...] = ("answered", "answer late", "late", "doubled", "lost")


@dataclass
class Process:
    """A holder and its clock."""

    lease: Lease
    zero: float
    rate: float

    def now(self, time: float) -> float:
        return self.zero + time * self.rate


class PermitWorld:
    """Two places for holders, a ledger, and the messages under way."""

    def __init__(self) -> None:
        self.time = 0.0
        self.born = 0
        self.ledger_zero = 0.0
        self.ledger = PermitLedger(LIMIT, TTL_S)
        self.network: list[Claim | Grant] = []
        self.isolated: list[Process] = []
        self.places = [self._new_process(0.0, 0.95), self._new_process(7.0, 1.05)]

    def _new_process(self, zero: float, rate: float) -> Process:
        self.born += 1
        return Process(Lease(f"holder-{self.born}", block=4), zero, rate)

    @property
    def running(self) -> list[Process]:
        return self.places + self.isolated

    def talk(self, process: Process, waiting: int, fate: Fate) -> None:
        """Let a process send the claim that is due, if one is."""
        claim = process.lease.poll(process.now(self.time), waiting)
        if claim is None or fate == "lost":
            return
        if fate in {"late", "doubled"}:
            self.network.append(claim)
        if fate == "answer late":
            self.network.append(self._heard(claim))
        if fate in {"answered", "doubled"}:
            process.lease.apply(self._heard(claim), process.now(self.time))

    def use(self, process: Process, change: int) -> None:
        """Acquire, or release, so many permits if possible."""
        for _ in range(change):
            expected = process.lease.available(process.now(self.time)) > 0
            assert process.lease.acquire(process.now(self.time)) == expected
        for _ in range(min(-change, process.lease.in_use)):
            process.lease.release()

    def deliver(self, index: int, *, again: bool, answer_late: bool) -> None:
        """Deliver a message that is under way, and perhaps once more later."""
        message = self.network[index] if again else self.network.pop(index)
        if isinstance(message, Claim):
            message = self._heard(message)
            if answer_late:
                self.network.append(message)
                return
        self._granted(message)

    def notify(self, *, late: bool) -> None:
        """Send the ledger's notices."""
        for grant in self.ledger.notices(self.ledger_zero + self.time):
            if late:
                self.network.append(grant)
            else:
                self._granted(grant)

    def kill(self, place: int, zero: float, rate: float) -> None:
        """End a process; another takes its place."""
        self.places[place] = self._new_process(zero, rate)

    def isolate(self, place: int, zero: float, rate: float, *, known: bool) -> None:
        """Replace a process that runs on; the ledger may be told of it."""
        process = self.places[place]
        if known:
            self.ledger.forget(process.lease.holder)
        self.isolated.append(process)
        self.places[place] = self._new_process(zero, rate)

    def restart_ledger(self, zero: float) -> None:
        """Replace the ledger by one that knows nothing and has another clock."""
        self.ledger_zero = zero
        self.ledger = PermitLedger(LIMIT, TTL_S, restarted_at=zero + self.time)

    def check(self) -> None:
        """Raise AssertionError unless the limit holds."""
        held = [process.lease.held(process.now(self.time)) for process in self.running]
        assert sum(held) <= LIMIT, (self.ledger, [process.lease for process in self.running])
        assert 0 <= self.ledger.leased <= LIMIT, self.ledger
        for process in self.running:
            lease, now = process.lease, process.now(self.time)
            assert 0 <= lease.in_use - lease.overdue(now) <= lease.held(now)
            assert lease.available(now) + lease.in_use <= max(lease.in_use, lease.held(now))

    def _heard(self, claim: Claim) -> Grant:
        return self.ledger.claim(claim, self.ledger_zero + self.time)

    def _granted(self, grant: Grant) -> None:
        for process in self.running:
            if process.lease.holder == grant.holder:
                process.lease.apply(grant, process.now(self.time))

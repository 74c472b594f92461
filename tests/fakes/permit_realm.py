"""All limits of a few processes whose messages the test may lose, double, delay and reorder.

The real :class:`ClusterLimits` and :class:`HolderLimits`, one event a method, each process with a
clock of its own zero and rate, and a service that takes some samples and turns others away.
:meth:`PermitRealm.check` holds what must be true after every event.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tinker_ray.limits import ClusterLimits, HolderLimits, Paused, Ruling, Stage, Statement, Ticket
from tinker_ray.limits.cluster import SLOTS_TTL_S

LIMIT = 12
LABELS = (("train", 3.0), ("eval", 1.0))

Fate = Literal["answered", "answer late", "late", "doubled", "lost"]
"""What becomes of a statement and its answer."""
FATES: tuple[Fate, ...] = ("answered", "answer late", "late", "doubled", "lost")
Outcome = Literal["accepted", "rejected", "failed", "finished"]
OUTCOMES: tuple[Outcome, ...] = ("accepted", "rejected", "failed", "finished")


@dataclass(eq=False)
class Process:
    """A holder, its clock and its samples."""

    limits: HolderLimits
    zero: float
    rate: float
    tickets: list[Ticket] = field(default_factory=list)

    def now(self, time: float) -> float:
        return self.zero + time * self.rate


class PermitRealm:
    """Three places for processes, what divides the limits, and the messages under way."""

    def __init__(self) -> None:
        self.time = 0.0
        self.born = 0
        self.cluster_zero = 0.0
        self.cluster = ClusterLimits(LIMIT)
        self.network: list[Statement | Ruling] = []
        self.isolated: list[Process] = []
        self.places = [
            self._new_process(zero, rate) for zero, rate in ((0.0, 0.95), (7.0, 1.05), (-3.0, 1.0))
        ]
        self._slots_leased = 0
        self._quiet_until = 0.0

    def _new_process(self, zero: float, rate: float) -> Process:
        self.born += 1
        limits = HolderLimits(f"holder-{self.born}", random=lambda: 0.5)
        return Process(limits, zero, rate)

    @property
    def running(self) -> list[Process]:
        return self.places + self.isolated

    def join(self, process: Process, count: int) -> None:
        """Let samples wait."""
        for number in range(count):
            label, weight = LABELS[number % 2]
            process.tickets.append(process.limits.join(label, weight, est_bytes=100))

    def admit(self, process: Process, count: int) -> None:
        """Send so many samples if possible."""
        now = process.now(self.time)
        for _ in range(count):
            ticket = process.limits.admit(now)
            if ticket is None:
                return
            assert not isinstance(process.limits.state(now), Paused)
            assert process.limits.permits.in_use <= process.limits.permits.held(now)

    def end(self, process: Process, outcome: Outcome, count: int) -> None:
        """Let so many samples have an outcome."""
        now = process.now(self.time)
        stage = Stage.AT_WORK if outcome == "finished" else Stage.DISPATCHED
        for ticket in [one for one in process.tickets if one.stage is stage][:count]:
            if outcome == "accepted":
                process.limits.accepted(ticket, now)
            elif outcome == "rejected":
                process.limits.rejected(ticket, now)
            else:
                process.limits.finished(ticket)
        process.tickets = [one for one in process.tickets if one.stage is not Stage.ENDED]

    def talk(self, process: Process, fate: Fate) -> None:
        """Let a process send the message that is due, if one is."""
        statement = process.limits.poll(process.now(self.time))
        if statement is None or fate == "lost":
            return
        if fate in {"late", "doubled"}:
            self.network.append(statement)
        if fate == "answer late":
            self.network.append(self._heard(statement))
        if fate in {"answered", "doubled"}:
            process.limits.apply(self._heard(statement), process.now(self.time))

    def deliver(self, index: int, *, again: bool, answer_late: bool) -> None:
        """Deliver a message that is under way, and perhaps once more later."""
        message = self.network[index] if again else self.network.pop(index)
        if isinstance(message, Statement):
            message = self._heard(message)
            if answer_late:
                self.network.append(message)
                return
        self._told(message)

    def notify(self, *, late: bool) -> None:
        """Send what the cluster's side has to say unasked."""
        for ruling in self.cluster.notices(self.cluster_zero + self.time):
            if late:
                self.network.append(ruling)
            else:
                self._told(ruling)

    def kill(self, place: int, zero: float, rate: float) -> None:
        """End a process; another takes its place."""
        self.places[place] = self._new_process(zero, rate)

    def isolate(self, place: int, zero: float, rate: float, *, known: bool) -> None:
        """Replace a process that runs on; the cluster's side may be told of it."""
        process = self.places[place]
        if known:
            self.cluster.forget(process.limits.holder)
        self.isolated.append(process)
        self.places[place] = self._new_process(zero, rate)

    def restart_cluster(self, zero: float) -> None:
        """Replace what divides by one that knows nothing and has another clock."""
        self.cluster_zero = zero
        self.cluster = ClusterLimits(LIMIT, restarted_at=zero + self.time)
        self._slots_leased = 0
        self._quiet_until = self.time + SLOTS_TTL_S

    def settle(self) -> None:
        """Let everything end well: no message is lost any more, and every sample is answered."""
        self.network.clear()
        for process in self.running:
            process.limits.close()
        for _ in range(400):
            self.time += 0.5
            for process in self.running:
                self.end(process, "accepted", 1000)
                self.end(process, "finished", 1000)
                self.talk(process, "answered")
            self.notify(late=False)

    def check(self) -> None:
        """Raise AssertionError unless the limits hold."""
        held = [one.limits.permits.held(one.now(self.time)) for one in self.running]
        assert sum(held) <= LIMIT, (self.cluster, [one.limits for one in self.running])
        assert 0 <= self.cluster.permits.leased <= LIMIT, self.cluster
        assert self.cluster.permits.overdue >= 0
        self._check_slots()
        for process in self.running:
            self._check_one(process)

    def _check_slots(self) -> None:
        """The window may shrink, and then drains: the ledger grants nothing above it."""
        slots = self.cluster.slots
        assert slots.leased <= max(slots.limit, self._slots_leased), self.cluster
        self._slots_leased = slots.leased
        if self.time < self._quiet_until:
            return
        for process in self.running:
            lease = process.limits.slots
            if not lease.unlimited:
                known = slots.holders.get(lease.holder, 0)
                assert lease.capacity(process.now(self.time)) <= known, (self.cluster, lease)

    def _check_one(self, process: Process) -> None:
        limits, now = process.limits, process.now(self.time)
        stages = Counter(ticket.stage for ticket in process.tickets)
        assert limits.waiting == stages[Stage.WAITING]
        assert limits.dispatching == stages[Stage.DISPATCHED]
        assert limits.at_work == stages[Stage.AT_WORK]
        for lease in (limits.permits, limits.slots):
            if not lease.unlimited:
                assert 0 <= lease.in_use - lease.overdue(now) <= lease.held(now)
                assert lease.available(now) + lease.in_use <= max(lease.in_use, lease.held(now))

    def _heard(self, statement: Statement) -> Ruling:
        return self.cluster.state(statement, self.cluster_zero + self.time)

    def _told(self, ruling: Ruling) -> None:
        for process in self.running:
            if process.limits.holder == ruling.holder:
                process.limits.apply(ruling, process.now(self.time))

"""The protocol of ledger and leases under any order of events: the limit holds."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinker_ray.limits import Claim, Grant, Lease, PermitLedger

LIMIT = 20
TTL_S = 10.0
HOLDERS = st.integers(0, 3)


@dataclass
class _Process:
    """A holder with a clock that runs at its own rate from its own zero."""

    lease: Lease
    zero: float
    rate: float

    def now(self, time: float) -> float:
        return self.zero + time * self.rate


class PermitMachine(RuleBasedStateMachine):
    """Four places for holders, one ledger, a network that loses, doubles, delays and reorders."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.born = 0
        self.ledger_zero = 0.0
        self.ledger = PermitLedger(LIMIT, TTL_S)
        self.network: list[Claim | Grant] = []
        self.places: list[_Process] = []
        self.isolated: list[_Process] = []
        for _ in range(4):
            self.places.append(self._new_process(0.0, 1.0))

    def _new_process(self, zero: float, rate: float) -> _Process:
        self.born += 1
        return _Process(Lease(f"holder-{self.born}", block=4), zero, rate)

    @property
    def running(self) -> list[_Process]:
        return self.places + self.isolated

    @property
    def ledger_now(self) -> float:
        return self.ledger_zero + self.time

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 3.0, 9.5, 10.5]))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @rule(place=HOLDERS, waiting=st.integers(0, 15))
    def talk(self, place: int, waiting: int) -> None:
        process = self.places[place]
        claim = process.lease.poll(process.now(self.time), waiting)
        if claim is not None:
            self.network.append(claim)

    @rule(waiting=st.integers(0, 15))
    def everybody_talks_and_is_heard(self, waiting: int) -> None:
        for process in self.places:
            claim = process.lease.poll(process.now(self.time), waiting)
            if claim is not None:
                process.lease.apply(
                    self.ledger.claim(claim, self.ledger_now), process.now(self.time)
                )

    @rule(place=HOLDERS, count=st.integers(1, 15))
    def acquire(self, place: int, count: int) -> None:
        process = self.places[place]
        for _ in range(count):
            expected = process.lease.available(process.now(self.time)) > 0
            assert process.lease.acquire(process.now(self.time)) == expected

    @rule(place=HOLDERS, count=st.integers(1, 15))
    def release(self, place: int, count: int) -> None:
        for _ in range(min(count, self.places[place].lease.in_use)):
            self.places[place].lease.release()

    @precondition(lambda self: self.network)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:  # noqa: FBT001
        index = data.draw(st.integers(0, len(self.network) - 1))
        message = self.network[index] if again else self.network.pop(index)
        if isinstance(message, Claim):
            self.network.append(self.ledger.claim(message, self.ledger_now))
            return
        for process in self.running:
            if process.lease.holder == message.holder:
                process.lease.apply(message, process.now(self.time))

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.network.pop(data.draw(st.integers(0, len(self.network) - 1)))

    @rule()
    def notify(self) -> None:
        self.network += self.ledger.notices(self.ledger_now)

    @rule(place=HOLDERS, zero=st.floats(-50, 50), rate=st.floats(0.95, 1.05))
    def kill(self, place: int, zero: float, rate: float) -> None:
        self.places[place] = self._new_process(zero, rate)

    @rule(place=HOLDERS, zero=st.floats(-50, 50), rate=st.floats(0.95, 1.05))
    def replace_one_that_runs_on(self, place: int, zero: float, rate: float) -> None:
        process = self.places[place]
        self.ledger.forget(process.lease.holder)
        self.isolated.append(process)
        self.places[place] = self._new_process(zero, rate)

    @rule(zero=st.floats(-50, 50))
    def restart_the_ledger(self, zero: float) -> None:
        self.ledger_zero = zero
        self.ledger = PermitLedger(LIMIT, TTL_S, restarted_at=self.ledger_now)

    @invariant()
    def leases_that_anybody_believes_in_stay_within_the_limit(self) -> None:
        held = [process.lease.held(process.now(self.time)) for process in self.running]
        assert sum(held) <= LIMIT, (self.ledger, [process.lease for process in self.running])

    @invariant()
    def the_ledger_never_records_more_than_the_limit(self) -> None:
        assert 0 <= self.ledger.leased <= LIMIT

    @invariant()
    def permits_in_use_are_covered_or_overdue(self) -> None:
        for process in self.running:
            lease, now = process.lease, process.now(self.time)
            assert 0 <= lease.in_use - lease.overdue(now) <= lease.held(now)
            assert lease.available(now) + lease.in_use <= max(lease.in_use, lease.held(now))


TestPermitMachine = PermitMachine.TestCase
TestPermitMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

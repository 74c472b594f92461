"""All limits together under any order of events: both hold, and everything returns."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.permit_realm import FATES, LIMIT, OUTCOMES, Fate, Outcome, PermitRealm, Process

PLACES = st.integers(0, 2)
ZEROS = st.floats(-50, 50)
RATES = st.sampled_from([0.95, 1.0, 1.05])
COUNTS = st.sampled_from([1, 3, LIMIT])


class LimitsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.realm = PermitRealm()

    def _process(self, place: int) -> Process:
        running = self.realm.running
        return running[place % len(running)]

    @rule(seconds=st.sampled_from([0.2, 0.7, 1.3, 3.5, 9.3, 41.0]))
    def wait(self, seconds: float) -> None:
        self.realm.time += seconds

    @rule(place=PLACES, count=COUNTS)
    def join_and_admit(self, place: int, count: int) -> None:
        self.realm.join(self._process(place), count)
        self.realm.admit(self._process(place), count)

    @rule(place=st.integers(0, 5), count=COUNTS)
    def admit(self, place: int, count: int) -> None:
        self.realm.admit(self._process(place), count)

    @rule(place=st.integers(0, 5), outcome=st.sampled_from(OUTCOMES), count=COUNTS)
    def end(self, place: int, outcome: Outcome, count: int) -> None:
        self.realm.end(self._process(place), outcome, count)

    @rule(place=PLACES, fate=st.sampled_from(FATES))
    def talk(self, place: int, fate: Fate) -> None:
        self.realm.talk(self._process(place), fate)

    @precondition(lambda self: self.realm.network)
    @rule(data=st.data(), flags=st.tuples(st.booleans(), st.booleans()))
    def deliver(self, data: st.DataObject, flags: tuple[bool, bool]) -> None:
        index = data.draw(st.integers(0, len(self.realm.network) - 1))
        self.realm.deliver(index, again=flags[0], answer_late=flags[1])

    @rule(late=st.booleans())
    def notify(self, late: bool) -> None:  # noqa: FBT001 - a drawn value
        self.realm.notify(late=late)

    @rule(place=PLACES, zero=ZEROS, rate=RATES)
    def kill(self, place: int, zero: float, rate: float) -> None:
        self.realm.kill(place, zero, rate)

    @rule(place=PLACES, zero=ZEROS, rate=RATES, known=st.booleans())
    def replace_one_that_runs_on(
        self,
        place: int,
        zero: float,
        rate: float,
        known: bool,  # noqa: FBT001 - a drawn value
    ) -> None:
        self.realm.isolate(place, zero, rate, known=known)

    @rule(zero=ZEROS)
    def restart_what_divides(self, zero: float) -> None:
        self.realm.restart_cluster(zero)

    @invariant()
    def the_limits_hold(self) -> None:
        self.realm.check()


TestLimitsMachine = LimitsMachine.TestCase
TestLimitsMachine.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)


def _step(realm: PermitRealm, rng: random.Random) -> None:
    """Let one event happen; disasters are rare, so that there is something for them to disturb."""
    event = rng.random()
    process = rng.choice(realm.running)
    clock = (rng.uniform(-50, 50), rng.choice([0.95, 1.0, 1.05]))
    if event < 0.20:
        realm.time += rng.choice([0.05, 0.2, 0.3, 0.6, 1.4, 3.5, 9.3])
    elif event < 0.45:
        fate: Fate = "answered" if rng.random() < 0.6 else rng.choice(FATES)
        realm.talk(process, fate)
    elif event < 0.60:
        realm.join(process, rng.choice([0, 1, 3, LIMIT]))
        realm.admit(process, LIMIT)
    elif event < 0.75:
        outcome: Outcome = "rejected" if rng.random() < 0.1 else rng.choice(OUTCOMES)
        realm.end(process, outcome, rng.choice([1, 3, LIMIT]))
    elif event < 0.85:
        if realm.network:
            index = rng.randrange(len(realm.network))
            realm.deliver(index, again=rng.random() < 0.3, answer_late=rng.random() < 0.3)
    elif event < 0.97:
        realm.notify(late=rng.random() < 0.2)
    elif event < 0.98:
        realm.kill(rng.randrange(3), *clock)
    elif event < 0.99:
        realm.isolate(rng.randrange(3), *clock, known=rng.random() < 0.5)
    else:
        realm.restart_cluster(clock[0])


@pytest.mark.parametrize("seed", range(8))
def test_both_limits_hold_on_long_random_walks_and_everything_returns(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        realm = PermitRealm()
        for _ in range(250):
            _step(realm, rng)
            realm.check()
        realm.settle()
        realm.check()
        assert (realm.cluster.permits.leased, realm.cluster.slots.leased) == (0, 0)
        assert (realm.cluster.permits.in_use, realm.cluster.slots.in_use) == (0, 0)

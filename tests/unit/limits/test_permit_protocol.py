"""The protocol of ledger and leases under any order of events: the limit holds."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.permit_world import FATES, LIMIT, Fate, PermitWorld

PLACES = st.integers(0, 1)
WAITING = st.sampled_from([0, 3, LIMIT])
CHANGES = st.sampled_from([-LIMIT, -3, 3, LIMIT])
ZEROS = st.floats(-50, 50)
RATES = st.sampled_from([0.95, 1.0, 1.05])


class PermitMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = PermitWorld()

    @rule(seconds=st.sampled_from([0.2, 1.0, 3.5, 9.3]))
    def wait(self, seconds: float) -> None:
        self.world.time += seconds

    @rule(place=PLACES, waiting=WAITING, fate=st.sampled_from(FATES))
    def talk(self, place: int, waiting: int, fate: Fate) -> None:
        self.world.talk(self.world.places[place], waiting, fate)

    @precondition(lambda self: self.world.isolated)
    @rule(waiting=WAITING, fate=st.sampled_from(FATES))
    def talk_in_isolation(self, waiting: int, fate: Fate) -> None:
        self.world.talk(self.world.isolated[-1], waiting, fate)

    @rule(place=PLACES, change=CHANGES)
    def use(self, place: int, change: int) -> None:
        self.world.use(self.world.places[place], change)

    @precondition(lambda self: self.world.network)
    @rule(data=st.data(), flags=st.tuples(st.booleans(), st.booleans()))
    def deliver(self, data: st.DataObject, flags: tuple[bool, bool]) -> None:
        index = data.draw(st.integers(0, len(self.world.network) - 1))
        self.world.deliver(index, again=flags[0], answer_late=flags[1])

    @rule()
    def notify(self) -> None:
        self.world.notify(late=False)

    @rule()
    def notify_late(self) -> None:
        self.world.notify(late=True)

    @rule(place=PLACES, zero=ZEROS, rate=RATES)
    def kill(self, place: int, zero: float, rate: float) -> None:
        self.world.kill(place, zero, rate)

    @rule(place=PLACES, zero=ZEROS, rate=RATES)
    def replace_one_that_runs_on(self, place: int, zero: float, rate: float) -> None:
        self.world.isolate(place, zero, rate, known=True)

    @rule(place=PLACES, zero=ZEROS, rate=RATES)
    def cut_one_off(self, place: int, zero: float, rate: float) -> None:
        self.world.isolate(place, zero, rate, known=False)

    @rule(zero=ZEROS)
    def restart_the_ledger(self, zero: float) -> None:
        self.world.restart_ledger(zero)

    @invariant()
    def the_limit_holds(self) -> None:
        self.world.check()


TestPermitMachine = PermitMachine.TestCase
TestPermitMachine.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)


def _step(world: PermitWorld, rng: random.Random) -> None:
    """Let one event happen; disasters are rare, so that there is something for them to disturb."""
    event = rng.random()
    place = rng.randrange(2)
    clock = (rng.uniform(-50, 50), rng.choice([0.95, 1.0, 1.05]))
    waiting = rng.choice([0, 3, LIMIT, LIMIT])
    if event < 0.25:
        world.time += rng.choice([0.05, 0.3, 1.1, 1.1, 3.5, 9.3])
    elif event < 0.60:
        fate: Fate = "answered" if rng.random() < 0.4 else rng.choice(FATES)
        world.talk(rng.choice(world.running), waiting, fate)
    elif event < 0.75:
        world.use(rng.choice(world.running), rng.choice([-LIMIT, -3, 3, LIMIT]))
    elif event < 0.85:
        if world.network:
            index = rng.randrange(len(world.network))
            world.deliver(index, again=rng.random() < 0.3, answer_late=rng.random() < 0.3)
    elif event < 0.95:
        world.notify(late=rng.random() < 0.3)
    elif event < 0.96:
        world.kill(place, *clock)
    elif event < 0.98:
        world.isolate(place, *clock, known=rng.random() < 0.5)
    else:
        world.restart_ledger(clock[0])


@pytest.mark.parametrize("seed", range(8))
def test_the_limit_holds_on_long_random_walks(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        world = PermitWorld()
        for _ in range(100):
            _step(world, rng)
            world.check()

"""How many samplers there are: rules in virtual time, and a walk over events in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.pool_size import SHUN_S, Drain, End, PoolBounds, PoolSize, Start

BOUNDS = PoolBounds(least=1, most=8, carries=100, idle_s=60.0, grow_s=1.0, start_s=30.0)


@dataclass
class World:
    """The machine with what its commands lead to."""

    bounds: PoolBounds = BOUNDS
    nodes: dict[str, float] = field(default_factory=lambda: {"a": 4.0})
    now: float = 0.0
    home: str = "a"

    def __post_init__(self) -> None:
        self.size = PoolSize(self.bounds, self.now, self.home)
        self.size.on_nodes(self.nodes, self.now)
        self.taking: dict[int, str | None] = {}
        self.draining: set[int] = set()
        self.log: list[Start | Drain | End] = []

    def step(self, seconds: float = 1.0) -> list[Start | Drain | End]:
        """Let time pass and carry out what is decided."""
        self.now += seconds
        return self.carry_out(self.size.decide(self.now))

    def carry_out(self, commands: list[Start | Drain | End]) -> list[Start | Drain | End]:
        for command in commands:
            if isinstance(command, Start):
                self.taking[command.number] = command.node
            elif isinstance(command, Drain):
                del self.taking[command.number]
                self.draining.add(command.number)
            else:
                self.taking.pop(command.number, None)
                self.draining.discard(command.number)
        self.log += commands
        return commands

    def come_up(self) -> None:
        """All that were started live."""
        for number, node in self.taking.items():
            self.size.on_ready(number, node or "a")

    def run(self, seconds: int) -> None:
        """Let time pass; who is started comes up."""
        for _ in range(seconds):
            self.step()
            self.come_up()


def may_grow(world: World) -> bool:
    return world.size.may_grow


def test_a_pool_opens_with_one_on_each_node() -> None:
    world = World(nodes={"a": 4.0, "b": 4.0, "c": 0.0})
    assert [Start(0, "a"), Start(1, "b")] == world.step(0.0)


def test_on_one_node_ray_chooses_the_place() -> None:
    assert [Start(0, None)] == World().step(0.0)


def test_it_grows_when_there_has_been_too_much_to_do_for_a_moment() -> None:
    world = World()
    world.run(1)
    world.size.on_load(0, 100)
    world.size.on_waiting(150)
    assert [] == world.step(0.5)
    assert [] == world.step(0.5)
    assert [Start(1), Start(2)] == world.step(0.5)
    assert [] == world.step(5.0)


def test_a_burst_that_is_soon_over_starts_nothing() -> None:
    world = World()
    world.run(1)
    world.size.on_waiting(500)
    world.step(0.9)
    world.size.on_waiting(0)
    world.step(0.9)
    world.size.on_waiting(500)
    assert [] == world.step(0.9)


def test_it_grows_no_further_than_the_most_and_the_cpus_allow() -> None:
    world = World(nodes={"a": 2.0, "b": 3.5})
    world.size.on_waiting(100_000)
    world.run(5)
    assert {"a": 2, "b": 3} == {
        node: list(world.taking.values()).count(node) for node in ("a", "b")
    }
    world = World(nodes={"a": 64.0})
    world.size.on_waiting(100_000)
    world.run(5)
    assert 8 == len(world.taking)


def test_after_a_while_with_less_to_do_it_drains_to_what_was_needed_at_most() -> None:
    world = World()
    world.size.on_waiting(400)
    world.run(5)
    world.size.on_waiting(0)
    world.size.on_load(0, 150)
    world.run(59)
    assert 4 == len(world.taking)
    world.run(2)
    assert ({0, 1}, {2, 3}) == (set(world.taking), world.draining)


def test_unused_for_a_while_it_shrinks_to_the_least_and_grows_again_when_used() -> None:
    world = World(nodes={"a": 4.0, "b": 4.0, "c": 4.0})
    world.run(1)
    assert 3 == len(world.taking)
    world.run(130)
    assert 1 == len(world.taking)
    world.size.on_waiting(1)
    world.step(0.1)
    assert 3 == len(world.taking)


def test_who_drains_is_ended_when_nothing_is_left() -> None:
    world = World()
    world.size.on_waiting(200)
    world.run(5)
    world.size.on_waiting(0)
    world.run(70)
    [number] = world.draining
    assert [End(number)] == world.size.on_empty(number)
    assert [] == world.size.on_empty(number)
    assert [] == world.size.on_empty(0)


def test_a_node_that_joins_gets_a_sampler_at_once_while_the_pool_is_used() -> None:
    world = World()
    world.run(1)
    world.size.on_nodes({"a": 4.0, "b": 4.0}, world.now)
    assert [Start(1, "b")] == world.step(0.1)


def test_samplers_of_a_lost_node_are_replaced_elsewhere() -> None:
    world = World(nodes={"a": 4.0, "b": 4.0}, bounds=PoolBounds(least=2, most=8))
    world.run(1)
    assert [End(1)] == world.carry_out(world.size.on_nodes({"a": 4.0}, world.now))
    assert [Start(2, None)] == world.step(0.1)


def test_who_does_not_come_up_on_its_node_is_tried_elsewhere() -> None:
    world = World(nodes={"a": 4.0, "b": 4.0}, bounds=PoolBounds(least=2, most=2))
    world.step(0.0)
    world.size.on_ready(0, "a")
    assert [End(1)] == world.step(30.0)
    assert [Start(2, "a")] == world.step(1.0)
    world.size.on_ready(2, "a")
    world.size.on_nodes({"a": 4.0, "b": 4.0}, world.now + SHUN_S)
    world.size.on_lost(2, world.now)
    assert [Start(3, "b")] == world.step(1.0)


def test_a_full_cluster_is_not_waited_for_by_what_others_can_do() -> None:
    world = World()
    world.run(1)
    world.size.on_waiting(150)
    world.step()
    assert may_grow(world)
    assert [Start(1)] == world.step()
    assert [End(1)] == world.step(30.0)
    assert not may_grow(world)
    assert [Start(2)] == world.step(2.0)
    world.size.on_ready(2, "a")
    assert may_grow(world)


def test_a_pool_of_the_most_does_not_grow() -> None:
    world = World(nodes={"a": 2.0})
    assert may_grow(world)
    world.size.on_waiting(1000)
    world.run(3)
    assert not may_grow(world)


def test_starts_that_fail_one_after_the_other_come_slower_and_slower() -> None:
    world = World()
    starts = []
    for _ in range(60):
        for command in world.step(1.0):
            if isinstance(command, Start):
                starts.append(world.now)
                del world.taking[command.number]
                world.size.on_lost(command.number, world.now)
    assert [1.0, 2.0, 3.0, 5.0, 9.0, 17.0, 33.0] == starts


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_there_are_never_fewer_than_the_least(seconds: float) -> None:
    world = World(bounds=PoolBounds(least=3, most=5))
    world.run(1)
    world.step(seconds)
    assert 3 == len(world.taking)


class Walk(RuleBasedStateMachine):
    """Events in any order: loads, nodes that come and go, samplers that die or never come up."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(bounds=PoolBounds(least=2, most=5, carries=10, idle_s=5.0, grow_s=1.0))
        self.settled = False

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.step(seconds)

    @rule(waiting=st.integers(0, 100))
    def samples_wait(self, waiting: int) -> None:
        self.world.size.on_waiting(waiting)

    @rule(number=st.integers(0, 30), load=st.integers(0, 100))
    def a_load_is_told(self, number: int, load: int) -> None:
        self.world.size.on_load(number, load)

    @rule(nodes=st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 2.0])))
    def nodes_change(self, nodes: dict[str, float]) -> None:
        self.world.carry_out(self.world.size.on_nodes(nodes, self.world.now))

    @precondition(lambda self: self.world.taking)
    @rule(data=st.data())
    def one_comes_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.taking)))
        self.world.size.on_ready(number, self.world.taking[number] or "a")

    @rule(number=st.integers(0, 30))
    def one_is_lost(self, number: int) -> None:
        self.world.size.on_lost(number, self.world.now)
        self.world.taking.pop(number, None)
        self.world.draining.discard(number)

    @rule(number=st.integers(0, 30))
    def one_is_empty(self, number: int) -> None:
        self.world.carry_out(self.world.size.on_empty(number))

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.world.run(40)
        self.settled = True
        assert len(self.world.taking) >= self.world.bounds.least

    @invariant()
    def never_more_than_the_most_take_samples(self) -> None:
        assert len(self.world.taking) <= self.world.bounds.most

    @invariant()
    def no_number_is_started_twice(self) -> None:
        numbers = [command.number for command in self.world.log if isinstance(command, Start)]
        assert list(range(len(numbers))) == numbers

    @invariant()
    def only_what_was_started_ends(self) -> None:
        assert not self.world.draining & set(self.world.taking)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)

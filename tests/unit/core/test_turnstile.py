from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import settle
from tinker_ray.core.turnstile import Turnstile
from tinker_ray.errors import StaleHandleError


class Hall:
    """Visitors go through a turnstile; who goes in is noted, and that nobody is in already."""

    def __init__(self, first: int = 1) -> None:
        self.turnstile = Turnstile(first)
        self.entered: list[int] = []
        self.refused: list[int] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self._inside = 0

    def arrive(self, number: int, *, stays: bool = False) -> None:
        self.gates[number] = asyncio.Event()
        if not stays:
            self.gates[number].set()
        self.tasks[number] = asyncio.create_task(self._visit(number))

    async def _visit(self, number: int) -> None:
        try:
            async with self.turnstile.turn(number):
                self._inside += 1
                assert self._inside == 1
                self.entered.append(number)
                try:
                    await self.gates[number].wait()
                finally:
                    self._inside -= 1
        except StaleHandleError:
            self.refused.append(number)

    async def end(self) -> None:
        for gate in self.gates.values():
            gate.set()
        await settle()
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(1, 9)))
def test_any_order_of_arrival_becomes_the_order_of_the_numbers(order: list[int]) -> None:
    async def scenario() -> None:
        hall = Hall()
        for number in order:
            hall.arrive(number)
            await asyncio.sleep(0)
        await asyncio.gather(*hall.tasks.values())
        assert list(range(1, 9)) == hall.entered

    asyncio.run(scenario())


EVENTS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 8)),
    st.tuples(st.just("arrive and stay"), st.integers(1, 8)),
    st.tuples(st.just("cancel"), st.integers(1, 8)),
    st.tuples(st.just("leave"), st.integers(1, 8)),
    st.tuples(st.just("floor"), st.integers(1, 9)),
    st.tuples(st.just("settle"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_visitors_enter_one_by_one_and_nobody_is_forgotten(
    events: list[tuple[str, int]],
) -> None:
    async def scenario() -> None:
        hall, cancelled = Hall(), set[int]()
        for event, number in events:
            if event.startswith("arrive") and number not in hall.tasks:
                hall.arrive(number, stays=event == "arrive and stay")
            elif event == "cancel" and number in hall.tasks:
                hall.tasks[number].cancel()
                cancelled.add(number)
            elif event == "leave" and number in hall.gates:
                hall.gates[number].set()
            elif event == "floor":
                hall.turnstile.advance_to(number)
            elif event == "settle":
                await settle()
        hall.turnstile.advance_to(9)
        await hall.end()
        assert sorted(hall.entered) == hall.entered
        assert set(hall.tasks) - cancelled <= set(hall.entered) | set(hall.refused)
        assert 9 == hall.turnstile.next_number
        assert "waiting=[]" in repr(hall.turnstile)

    asyncio.run(scenario())


async def test_the_turn_passes_on_when_its_block_fails() -> None:
    turnstile = Turnstile()
    with suppress(ZeroDivisionError):
        async with turnstile.turn(1):
            _ = 1 / 0
    async with turnstile.turn(2):
        assert 2 == turnstile.next_number


async def test_a_number_has_its_turn_once() -> None:
    turnstile = Turnstile()
    async with turnstile.turn(1):
        pass
    with pytest.raises(StaleHandleError, match="number 1"):
        async with turnstile.turn(1):
            pass


async def test_two_cannot_wait_with_one_number() -> None:
    hall = Hall()
    hall.arrive(2)
    await settle()
    with pytest.raises(StaleHandleError, match="number 2"):
        async with hall.turnstile.turn(2):
            pass
    await hall.end()


async def test_a_cancelled_waiter_may_come_again() -> None:
    hall = Hall()
    hall.arrive(2)
    await settle()
    hall.tasks[2].cancel()
    await settle()
    hall.arrive(2)
    hall.arrive(1)
    await settle()
    assert [1, 2] == hall.entered


async def test_a_waiter_cancelled_when_its_turn_had_come_passes_it_on() -> None:
    hall = Hall()
    hall.arrive(1, stays=True)
    hall.arrive(2)
    hall.arrive(3)
    await settle()
    hall.gates[1].set()
    hall.tasks[2].cancel()
    await settle()
    assert [1, 3] == hall.entered


async def test_numbers_that_will_not_come_are_passed_over() -> None:
    hall = Hall()
    hall.arrive(4)
    await settle()
    hall.turnstile.advance_to(4)
    await settle()
    assert [4] == hall.entered


async def test_numbers_that_have_come_are_not_passed_over() -> None:
    hall = Hall()
    hall.arrive(3)
    hall.arrive(5)
    await settle()
    hall.turnstile.advance_to(5)
    await settle()
    assert [3, 5] == hall.entered


async def test_a_floor_that_is_announced_while_somebody_is_inside_counts_when_he_leaves() -> None:
    hall = Hall()
    hall.arrive(1, stays=True)
    hall.arrive(4)
    await settle()
    hall.turnstile.advance_to(4)
    hall.gates[1].set()
    await settle()
    assert [1, 4] == hall.entered


async def test_the_floor_never_goes_back() -> None:
    turnstile = Turnstile(first=5)
    turnstile.advance_to(2)
    assert 5 == turnstile.next_number


# --- groups ---------------------------------------------------------------------------------------


class GroupHall(Hall):
    """A hall in which the numbers of a group may be inside together."""

    def __init__(self, groups: list[range], first: int = 1) -> None:
        super().__init__(first)
        self.groups = {number: group for group in groups for number in group}
        self.inside: set[int] = set()
        self.left: list[int] = []

    async def _visit(self, number: int) -> None:
        group = self.groups.get(number, range(number, number + 1))
        try:
            async with self.turnstile.turn(number, group):
                assert all(other in group for other in self.inside)
                self.inside.add(number)
                self.entered.append(number)
                try:
                    await self.gates[number].wait()
                finally:
                    self.inside.discard(number)
                    self.left.append(number)
        except StaleHandleError:
            self.refused.append(number)


async def test_a_group_goes_through_side_by_side_and_its_first_member_last() -> None:
    hall = GroupHall([range(2, 6)])
    for number in (1, 2, 3, 4, 5, 6):
        hall.arrive(number, stays=True)
    await settle()
    assert [1] == hall.entered
    hall.gates[1].set()
    await settle()
    assert {3, 4, 5} == hall.inside
    hall.gates[4].set()
    hall.gates[3].set()
    await settle()
    assert {5} == hall.inside
    hall.gates[5].set()
    await settle()
    assert ({2}, 2) == (hall.inside, hall.turnstile.next_number)
    hall.gates[2].set()
    await settle()
    assert ({6}, 6) == (hall.inside, hall.turnstile.next_number)
    await hall.end()


async def test_the_first_member_does_not_wait_for_members_that_are_not_there() -> None:
    hall = GroupHall([range(1, 4)])
    hall.arrive(3)
    hall.arrive(1)
    await settle()
    assert ([3, 1], 2) == (hall.entered, hall.turnstile.next_number)
    hall.arrive(4)
    await settle()
    assert [3, 1] == hall.entered
    hall.arrive(2)
    await settle()
    assert [3, 1, 2, 4] == hall.entered


async def test_a_group_whose_first_members_will_not_come_goes_through_too() -> None:
    hall = GroupHall([range(1, 5)])
    hall.arrive(3)
    hall.arrive(4, stays=True)
    hall.arrive(5)
    await settle()
    hall.turnstile.advance_to(5)
    await settle()
    assert [3, 4] == hall.entered
    hall.gates[4].set()
    await settle()
    assert [3, 4, 5] == hall.entered
    await hall.end()


async def test_a_member_has_its_turn_once() -> None:
    hall = GroupHall([range(1, 4)])
    hall.arrive(3)
    hall.arrive(2, stays=True)
    await settle()
    for number in (2, 3):
        with pytest.raises(StaleHandleError, match=f"number {number}"):
            async with hall.turnstile.turn(number, range(1, 4)):
                pass
    await hall.end()


@st.composite
def groups_and_order(draw: st.DrawFn) -> tuple[list[range], list[int]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    groups, first = [], 1
    for size in sizes:
        groups.append(range(first, first + size))
        first += size
    return groups, draw(st.permutations(range(1, first)))


@settings(max_examples=60, deadline=None)
@given(groups_and_order())
def test_groups_go_through_one_after_the_other_however_their_members_arrive(
    scenario: tuple[list[range], list[int]],
) -> None:
    groups, order = scenario

    async def run() -> None:
        hall = GroupHall(groups)
        for number in order:
            hall.arrive(number)
        await asyncio.gather(*hall.tasks.values())
        assert sorted(order) == sorted(hall.entered)
        position = {number: at for at, number in enumerate(hall.left)}
        ends = [max(position[number] for number in group) for group in groups]
        starts = [min(position[number] for number in group) for group in groups]
        assert all(end < start for end, start in zip(ends, starts[1:], strict=False))
        assert len(order) + 1 == hall.turnstile.next_number

    asyncio.run(run())


GROUPS = [range(1, 2), range(2, 5), range(5, 6), range(6, 9)]


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_groups_keep_apart_and_nobody_is_forgotten(
    events: list[tuple[str, int]],
) -> None:
    async def scenario() -> None:
        hall, cancelled = GroupHall(GROUPS), set[int]()
        for event, number in events:
            if event.startswith("arrive") and number not in hall.tasks:
                hall.arrive(number, stays=event == "arrive and stay")
            elif event == "cancel" and number in hall.tasks:
                hall.tasks[number].cancel()
                cancelled.add(number)
            elif event == "leave" and number in hall.gates:
                hall.gates[number].set()
            elif event == "floor":
                hall.turnstile.advance_to(number)
            elif event == "settle":
                await settle()
        hall.turnstile.advance_to(9)
        await hall.end()
        group_of = {number: at for at, group in enumerate(GROUPS) for number in group}
        assert sorted(group_of[n] for n in hall.entered) == [group_of[n] for n in hall.entered]
        assert set(hall.tasks) - cancelled <= set(hall.entered) | set(hall.refused)
        assert 9 == hall.turnstile.next_number
        assert "waiting=[]" in repr(hall.turnstile)

    asyncio.run(scenario())

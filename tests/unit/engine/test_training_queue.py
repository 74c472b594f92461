from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.serving.training_queue import TrainingQueue, TurnOrder


class Step:
    """An operation that records what happens to it."""

    def __init__(
        self, name: object, story: list[object], gate: asyncio.Event | None = None
    ) -> None:
        self.name = name
        self.story = story
        self.gate = gate
        self.settled = asyncio.Event()

    async def run(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.story.append(self.name)
        self.settled.set()

    async def give_up(self, reason: str) -> None:
        self.story.append(f"{self.name} given up: {reason}")
        self.settled.set()


@given(st.permutations(range(1, 9)))
def test_items_come_out_in_order_however_they_arrive(arrival: list[int]) -> None:
    order: TurnOrder[int] = TurnOrder()
    out = list(itertools.chain.from_iterable(order.admit(seq, seq) for seq in arrival))
    assert out == list(range(1, 9))
    assert not order.has_gap


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)))
def test_skipped_numbers_hold_nobody_up(arrival: list[int], skipped: set[int]) -> None:
    order: TurnOrder[int] = TurnOrder()
    out: list[int] = []
    for seq in arrival:
        out += order.skip(seq) if seq in skipped else order.admit(seq, seq)
    assert out == [seq for seq in range(1, 9) if seq not in skipped]


def test_a_number_is_past_when_it_ran_and_when_it_is_held() -> None:
    order: TurnOrder[str] = TurnOrder()
    order.admit(1, "one")
    order.admit(3, "three")
    assert [order.is_past(seq) for seq in (1, 2, 3, 4)] == [True, False, True, False]


def test_skipping_a_number_that_is_taken_changes_nothing() -> None:
    order: TurnOrder[str] = TurnOrder()
    order.admit(2, "two")
    assert order.skip(2) == []
    assert order.admit(1, "one") == ["one", "two"]


def test_an_abandoned_gap_gives_back_what_waited_and_goes_on_after_it() -> None:
    order: TurnOrder[str] = TurnOrder()
    order.admit(1, "one")
    order.admit(4, "four")
    order.admit(3, "three")
    order.skip(6)
    assert order.abandon_gap() == ["three", "four"]
    assert order.next_seq == 7
    assert order.admit(7, "seven") == ["seven"]


def test_only_items_make_a_gap() -> None:
    order: TurnOrder[str] = TurnOrder()
    order.skip(3)
    assert not order.has_gap
    order.admit(4, "four")
    assert order.has_gap


async def test_operations_run_one_at_a_time_in_order() -> None:
    queue = TrainingQueue(gap_timeout_s=60)
    story: list[object] = []
    gate = asyncio.Event()
    steps = {seq: Step(seq, story, gate if seq == 1 else None) for seq in (3, 1, 2)}
    for seq, step in steps.items():
        queue.submit(seq, step)
    assert story == []
    gate.set()
    await steps[3].settled.wait()
    assert story == [1, 2, 3]


async def test_operations_without_a_number_run_as_they_arrive() -> None:
    queue = TrainingQueue(gap_timeout_s=60)
    story: list[object] = []
    steps = [Step(name, story) for name in "abc"]
    for step in steps:
        queue.submit(None, step)
    await steps[-1].settled.wait()
    assert story == ["a", "b", "c"]


async def test_a_held_operation_does_not_hold_one_without_a_number() -> None:
    queue = TrainingQueue(gap_timeout_s=60)
    story: list[object] = []
    queue.submit(2, Step(2, story))
    free = Step("free", story)
    queue.submit(None, free)
    await free.settled.wait()
    assert story == ["free"]
    queue.close()


async def test_a_gap_that_does_not_close_fails_what_waits_and_the_queue_goes_on() -> None:
    queue = TrainingQueue(gap_timeout_s=0.01)
    story: list[object] = []
    held, later = Step(3, story), Step(4, story)
    queue.submit(1, Step(1, story))
    queue.submit(3, held)
    await held.settled.wait()
    queue.submit(4, later)
    await later.settled.wait()
    assert story[0] == 1
    assert "seq_id 2 did not arrive within 0.01 s" in str(story[1])
    assert story[2] == 4


async def test_a_gap_that_closes_in_time_fails_nothing() -> None:
    queue = TrainingQueue(gap_timeout_s=60)
    story: list[object] = []
    last = Step(2, story)
    queue.submit(2, last)
    queue.skip(1)
    await last.settled.wait()
    assert story == [2]


@pytest.mark.parametrize("seq_id", [1, 5])
async def test_the_queue_knows_which_numbers_are_used(seq_id: int) -> None:
    queue = TrainingQueue(gap_timeout_s=60)
    assert not queue.is_past(seq_id)
    queue.skip(seq_id)
    assert queue.is_past(seq_id)

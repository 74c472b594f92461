from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.clients.order import Hold, Order, Place
from tinker_ray.errors import PoisonedClientError


def test_numbers_are_consecutive_and_the_floor_is_the_lowest_open_one() -> None:
    order = Order(3)
    assert [range(3, 4), range(4, 6)] == [order.take().numbers, order.take(2).numbers]
    order.close(4)
    assert (3, 6) == (order.floor, order.hand_over(lambda number: number))
    order.close(3)
    assert 5 == order.floor
    order.close(5)
    assert 6 == order.floor


async def test_without_a_hold_nobody_waits() -> None:
    await Order(1).take().cleared()


async def test_what_comes_after_a_hold_waits_for_it() -> None:
    order = Order(1)
    before, hold, after = order.take(), order.hold(2), order.take()
    await before.cleared()
    waiting = asyncio.create_task(after.cleared())
    await asyncio.sleep(0)
    assert not waiting.done()
    order.let_pass(hold)
    await waiting
    assert order.take().behind is None


async def test_an_older_hold_that_ends_last_does_not_free_what_is_behind_the_newer() -> None:
    order = Order(1)
    first, second = order.hold(2), order.hold(2)
    assert (None, first) == (first.behind, second.behind)
    order.let_pass(first)
    assert order.take().behind is second


async def test_a_failed_hold_rejects_what_waits_and_what_comes_later_and_nothing_before() -> None:
    order = Order(1)
    before, hold, waiting = order.take(), order.hold(2), order.take()
    failure = ValueError("mine")
    order.poison(hold, failure)
    await before.cleared()
    with pytest.raises(PoisonedClientError, match="mine") as raised:
        await waiting.cleared()
    assert failure is raised.value.__cause__
    for take in (order.take, lambda: order.hold(2)):
        with pytest.raises(PoisonedClientError, match="create_training_client_from_state"):
            take()
    assert 5 == order.hand_over(lambda number: number)


async def test_a_rejection_tells_the_first_failure() -> None:
    order = Order(1)
    first, second, last = order.hold(2), order.hold(2), order.take()
    order.poison(first, ValueError("the first"))
    with pytest.raises(PoisonedClientError) as rejected:
        await Place(second.numbers, second.behind).cleared()
    order.poison(second, rejected.value)
    with pytest.raises(PoisonedClientError, match="ValueError\\('the first'\\)"):
        await last.cleared()


CALLS = st.lists(st.lists(st.integers(-4, 4).filter(bool), max_size=12), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(calls=CALLS)
def test_threads_get_disjoint_runs_and_every_later_call_is_behind_the_last_hold(
    calls: list[list[int]],
) -> None:
    """Positive: so many numbers of a plain call; negative: of a hold."""
    order = Order(1)
    start = threading.Barrier(len(calls))
    taken: list[list[Hold | Place]] = [[] for _ in calls]

    def call(counts: list[int], mine: list[Any]) -> None:
        start.wait(5)
        mine.extend(order.take(count) if count > 0 else order.hold(-count) for count in counts)

    threads = [
        threading.Thread(target=call, args=(counts, mine))
        for counts, mine in zip(calls, taken, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    for counts, mine in zip(calls, taken, strict=True):
        assert [abs(count) for count in counts] == [len(item.numbers) for item in mine]
        assert sorted(mine, key=lambda item: item.numbers.start) == mine
    everything = sorted((item for mine in taken for item in mine), key=lambda i: i.numbers.start)
    numbers = [number for item in everything for number in item.numbers]
    assert list(range(1, len(numbers) + 1)) == numbers
    last: Hold | None = None
    for item in everything:
        assert last is item.behind
        last = item if isinstance(item, Hold) else last


def test_holds_that_are_over_are_forgotten() -> None:
    order = Order(1)
    hold = order.hold(2)
    for _ in range(3):
        following = order.hold(2)
        order.let_pass(hold)
        assert following.behind is hold
        assert hold.behind is None
        hold = following

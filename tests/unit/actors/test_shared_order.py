from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.counters import Counters
from actors.journal import MemoryJournal, Record
from actors.shared_order import KEEP_S, RETURN_S, SharedOrder
from tests.fakes.clock import SteppedClock, settle
from tinker_ray.errors import StaleHandleError


class Orders:
    """Shared orders over one journal, one after the other as an actor's restarts make them."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.journal = MemoryJournal()
        self.floors: list[int] = []
        self.order = self.restart()

    def restart(self) -> SharedOrder:
        record = Record(self.journal, "order", self.clock)
        order = SharedOrder(record, self.clock, lambda: self.floors.append(self.order.floor))
        self.order = order
        return order

    async def order_close(self) -> None:
        """End the present one as a dead process does: nothing is forgotten."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await settle()

    async def admit(self, copy: str, number: int, floor: int = 1, parts: int = 1) -> int:
        return await self.order.admit(copy, number, floor, range(number, number + parts))


@pytest.fixture
async def orders() -> AsyncIterator[Orders]:
    made = Orders()
    yield made
    await made.order.aclose()


async def test_copies_get_numbers_in_the_order_of_their_arrival(orders: Orders) -> None:
    await orders.order.share(5, 5)
    assert [5, 6, 7] == [
        await orders.admit("a", 1),
        await orders.admit("b", 1),
        await orders.admit("a", 2),
    ]
    assert 5 == orders.order.floor


async def test_a_copys_operations_keep_the_order_of_its_calls(orders: Orders) -> None:
    await orders.order.share(1, 1)
    later = asyncio.create_task(orders.admit("a", 2))
    await settle()
    assert not later.done()
    assert 1 == await orders.admit("a", 1)
    assert 2 == await later


async def test_numbers_that_a_copy_gave_up_are_not_waited_for(orders: Orders) -> None:
    await orders.order.share(1, 1)
    assert 1 == await orders.admit("a", 4, floor=4)
    assert 2 == await orders.admit("a", 7, floor=7)


async def test_a_copy_may_come_before_the_owner_shares(orders: Orders) -> None:
    waiting = asyncio.create_task(orders.admit("a", 1))
    await settle()
    await orders.order.share(9, 9)
    assert 9 == await waiting


async def test_the_parts_of_a_batch_follow_each_other(orders: Orders) -> None:
    await orders.order.share(1, 1)
    assert 1 == await orders.admit("a", 1, parts=3)
    assert 4 == await orders.admit("b", 1)
    unit = range(1, 4)
    assert [2, 3] == [await orders.order.admit("a", number, 1, unit) for number in (2, 3)]
    assert 5 == await orders.admit("a", 4)


async def test_the_floor_waits_for_what_the_owner_numbered_itself(orders: Orders) -> None:
    await orders.order.share(5, 3)
    await orders.admit("a", 1)
    assert 3 == orders.order.floor
    orders.order.owner_is_at(9)
    assert 5 == orders.order.floor


async def test_the_floor_passes_what_is_acknowledged(orders: Orders) -> None:
    await orders.order.share(1, 1)
    for number in (1, 2, 3):
        await orders.admit("a", number)
        orders.order.done("a", number)
    assert 1 == orders.order.floor
    await orders.admit("a", 4, floor=4)
    assert 4 == orders.order.floor


async def test_a_copy_that_never_acknowledges_is_forgotten_in_the_end(orders: Orders) -> None:
    await orders.order.share(1, 1)
    await orders.admit("a", 1)
    orders.order.done("a", 1)
    await orders.clock.advance(KEEP_S + 1)
    await orders.admit("b", 1)
    assert 2 == orders.order.floor


async def test_a_restart_gives_an_operation_the_number_that_it_had(orders: Orders) -> None:
    await orders.order.share(3, 3)
    assert [3, 4] == [await orders.admit("a", 1), await orders.admit("b", 1)]
    orders.restart()
    assert 4 == await orders.admit("b", 1)
    assert 3 == await orders.admit("a", 1)
    assert 5 == await orders.admit("a", 2)


async def test_an_operation_that_does_not_come_again_is_given_up(orders: Orders) -> None:
    await orders.order.share(1, 1)
    await orders.admit("dead", 1)
    orders.restart()
    assert 2 == await orders.admit("a", 1)
    assert 1 == orders.order.floor
    await orders.clock.advance(RETURN_S + 1)
    assert (2, [2]) == (orders.order.floor, orders.floors)
    with pytest.raises(StaleHandleError, match="too late"):
        await orders.admit("a", 0, floor=0)


async def test_what_was_answered_long_ago_is_not_waited_for_after_a_restart(
    orders: Orders,
) -> None:
    await orders.order.share(1, 1)
    await orders.admit("a", 1)
    orders.order.done("a", 1)
    await orders.clock.advance(10)
    orders.restart()
    assert 2 == await orders.admit("b", 1)
    assert 2 == orders.order.floor


async def test_an_owner_that_is_gone_is_told(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.shared_order.HAND_OVER_S", 0.0)
    with pytest.raises(StaleHandleError, match="owner"):
        await orders.admit("a", 1)


async def test_a_place_that_cannot_be_written_down_is_written_later(orders: Orders) -> None:
    await orders.order.share(1, 1)

    class Failing(MemoryJournal):
        attempts = 0

        async def store(self, key: str, value: bytes) -> None:
            self.attempts += 1
            if self.attempts < 3:
                raise OSError
            await super().store(key, value)

    failing = Failing()
    failing.values = orders.journal.values
    orders.journal = failing
    orders.restart()
    admitted = asyncio.create_task(orders.admit("a", 1))
    await orders.clock.advance(5)
    assert (1, 3) == (await admitted, failing.attempts)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30))
def test_numbers_are_dense_and_each_copys_own_rise(calls: list[tuple[str, bool]]) -> None:
    async def run() -> list[tuple[str, int]]:
        orders = Orders()
        await orders.order.share(1, 1)
        own = dict.fromkeys("abc", 0)
        seqs = []
        for copy, restarts in calls:
            if restarts:
                await orders.order_close()
                orders.restart()
            own[copy] += 1
            seqs.append((copy, await orders.admit(copy, own[copy], floor=own[copy])))
        await orders.order_close()
        return seqs

    seqs = asyncio.run(run())
    assert list(range(1, len(calls) + 1)) == [seq for _, seq in seqs]


async def test_counters_are_handed_over_and_survive_a_restart() -> None:
    clock, journal = SteppedClock(), MemoryJournal()
    counters = Counters(Record(journal, "counters", clock))
    early = asyncio.create_task(counters.take("model"))
    await settle()
    await counters.adopt({"model": 3, "sampling_session": 7})
    assert [3, 4, 7, 0] == [
        await early,
        await counters.take("model"),
        await counters.take("sampling_session"),
        await counters.take("custom_loss"),
    ]
    restarted = Counters(Record(journal, "counters", clock))
    await restarted.adopt({"model": 3})
    assert [5, 1] == [await restarted.take("model"), await restarted.take("custom_loss")]
    await restarted.close()
    assert {} == journal.values


async def test_writers_at_the_same_time_share_a_write() -> None:
    class Slow(MemoryJournal):
        writes = 0

        async def store(self, key: str, value: bytes) -> None:
            self.writes += 1
            await asyncio.sleep(0)
            await super().store(key, value)

    journal = Slow()
    counters = Counters(Record(journal, "counters", SteppedClock()))
    await counters.adopt({})
    numbers = await asyncio.gather(*(counters.take("model") for _ in range(50)))
    assert list(range(50)) == sorted(numbers)
    assert journal.writes <= 3

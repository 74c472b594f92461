from __future__ import annotations

import asyncio

import pytest

from tinker_ray.clients.once import Once
from tinker_ray.errors import APIConnectionError


class Maker:
    """Makes numbers, once let go; fails while told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.num_calls = 0
        self.fails = False

    async def __call__(self) -> int:
        self.num_calls += 1
        await self.go.wait()
        if self.fails:
            raise APIConnectionError
        return self.num_calls


async def test_all_who_ask_get_the_same() -> None:
    maker = Maker()
    once = Once(maker)
    asking = asyncio.gather(once.get(), once.get())
    maker.go.set()
    assert [1, 1] == [*await asking]
    assert 1 == await once.get()


async def test_what_failed_is_made_again() -> None:
    maker = Maker()
    maker.go.set()
    maker.fails = True
    once = Once(maker)
    with pytest.raises(APIConnectionError):
        await once.get()
    maker.fails = False
    assert (2, 2) == (await once.get(), once.made)


async def test_settling_gives_what_was_made() -> None:
    maker = Maker()
    once = Once(maker)
    assert await once.settle(0) is None
    assert 0 == maker.num_calls
    maker.go.set()
    await once.get()
    assert 1 == await once.settle(0)


async def test_settling_waits_for_a_making_that_is_under_way() -> None:
    maker = Maker()
    once = Once(maker)
    asking = asyncio.create_task(once.get())
    await asyncio.sleep(0)
    maker.go.set()
    assert (1, 1) == (await once.settle(10), await asking)


async def test_settling_ends_a_making_that_takes_too_long() -> None:
    once = Once(Maker())
    asking = asyncio.create_task(once.get())
    await asyncio.sleep(0)
    assert await once.settle(0.001) is None
    with pytest.raises(asyncio.CancelledError):
        await asking

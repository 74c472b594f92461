from __future__ import annotations

import asyncio

from tests.fakes.clock import SteppedClock, settle
from tinker_ray.core.gathering import Gathering


def meeting(gathering: Gathering, number: int, group: range) -> asyncio.Task[None]:
    return asyncio.create_task(gathering.meet(number, group))


async def test_the_first_waits_for_the_others_who_do_not_wait() -> None:
    gathering = Gathering(SteppedClock())
    first = meeting(gathering, 1, range(1, 4))
    third = meeting(gathering, 3, range(1, 4))
    await settle()
    assert (False, True) == (first.done(), third.done())
    second = meeting(gathering, 2, range(1, 4))
    await settle()
    assert (True, True) == (first.done(), second.done())


async def test_the_last_to_arrive_may_be_the_first() -> None:
    gathering = Gathering(SteppedClock())
    for number in (2, 3, 1):
        await meeting(gathering, number, range(1, 4))


async def test_the_first_waits_a_second_at_most() -> None:
    clock = SteppedClock()
    gathering = Gathering(clock)
    first = meeting(gathering, 1, range(1, 3))
    await clock.advance(0.9)
    assert not first.done()
    await clock.advance(0.1)
    assert first.done()
    await meeting(gathering, 2, range(1, 3))


async def test_one_alone_waits_for_nobody() -> None:
    await Gathering(SteppedClock()).meet(1, range(1, 2))


async def test_groups_wait_for_their_own_members_only() -> None:
    gathering = Gathering(SteppedClock())
    first = meeting(gathering, 1, range(1, 3))
    await meeting(gathering, 4, range(3, 5))
    await settle()
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

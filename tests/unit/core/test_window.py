from __future__ import annotations

import asyncio

import pytest

from tests.fakes.clock import settle
from tinker_ray.core.window import Window
from tinker_ray.errors import APIConnectionError


class Work:
    """Tasks in a window that end when they are told to."""

    def __init__(self, width: int | None, patience_s: float | None = None) -> None:
        self.window = Window(width, patience_s)
        self.started: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._work(number))
        await settle()

    async def end(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()
        await settle()

    async def _work(self, number: int) -> None:
        async with self.window.place():
            self.started.append(number)
            await self.gates[number].wait()


async def test_so_many_work_at_once_in_the_order_in_which_they_came() -> None:
    work = Work(2)
    await work.start(1, 2, 3, 4)
    assert [1, 2] == work.started
    assert "2 of 2, 2 waiting" in repr(work.window)
    await work.end(2)
    await work.start(5)
    assert [1, 2, 3] == work.started
    await work.end(1, 3, 4, 5)
    assert [1, 2, 3, 4, 5] == work.started
    assert work.window.is_idle


async def test_a_window_may_have_no_bound() -> None:
    work = Work(None)
    await work.start(*range(50))
    assert list(range(50)) == work.started
    await work.end(*range(50))


async def test_who_goes_away_leaves_no_gap() -> None:
    work = Work(1)
    await work.start(1, 2, 3)
    work.tasks[2].cancel()
    work.tasks[1].cancel()
    await settle()
    assert [1, 3] == work.started
    await work.end(3)
    assert work.window.is_idle


async def test_who_is_cancelled_when_just_let_in_gives_the_place_back() -> None:
    work = Work(1)
    await work.start(1, 2, 3)
    work.gates[1].set()
    await work.tasks[1]
    work.tasks[2].cancel()
    await settle()
    assert 3 == work.started[-1]
    await work.end(3)
    assert work.window.is_idle


async def test_all_are_given_up_when_none_has_ended_for_too_long() -> None:
    work = Work(2, patience_s=0.02)
    await work.start(1, 2, 3)
    outcomes = await asyncio.gather(work.tasks[1], work.tasks[2], return_exceptions=True)
    assert [APIConnectionError, APIConnectionError] == [type(item) for item in outcomes]
    assert "stuck" in str(outcomes[0])
    await work.end(3)  # who was not at work yet has a try of its own
    await work.tasks[3]
    assert work.window.is_idle


async def test_an_end_gives_the_others_more_time() -> None:
    work = Work(None, patience_s=60.0)
    await work.start(1, 2)
    work.window._last_progress -= 61.0
    await work.end(1)
    work.window._look()
    await settle()
    assert not work.tasks[2].done()
    work.window._last_progress -= 61.0
    work.window._look()
    with pytest.raises(APIConnectionError):
        await work.tasks[2]


async def test_a_cancelled_task_stays_cancelled() -> None:
    work = Work(1, patience_s=60)
    await work.start(1)
    work.tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await work.tasks[1]
    assert work.window.is_idle


async def test_what_was_given_up_can_still_be_waited_for_with_a_timeout() -> None:
    window = Window(1, 0.01)
    with pytest.raises(APIConnectionError):
        async with window.place():
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()

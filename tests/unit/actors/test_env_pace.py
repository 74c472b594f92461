from __future__ import annotations

import asyncio
import time

from actors.env_pace import FIRST_GROUPS, LEAST_GROUPS, EnvPace, PaceWindow


def test_the_window_grows_while_the_loop_is_in_time_and_more_is_wanted() -> None:
    window = PaceWindow()
    for tick in range(30):
        window.observe(0.0, 8, 0.1 * tick, is_wanted=True)
    assert FIRST_GROUPS * 1.5**2 == window.groups


def test_groups_that_end_in_time_make_room_for_more() -> None:
    window = PaceWindow()
    for _ in range(5):
        window.end(began_at=1.0)
    assert FIRST_GROUPS + 5 == window.groups
    window.observe(0.6, 8, 2.0, is_wanted=True)
    window.end(began_at=1.5)
    assert FIRST_GROUPS + 5 == window.groups


def test_the_window_shrinks_by_as_much_as_the_loop_is_late_but_a_few_groups_stay() -> None:
    window = PaceWindow(groups=20)
    window.observe(2.0, 16, 1.0, is_wanted=True)
    assert 8 == window.groups
    window.observe(2.0, 16, 1.9, is_wanted=True)
    assert 8 == window.groups
    for second in range(2, 20):
        window.observe(2.0, 8, float(second), is_wanted=True)
        window.end(began_at=second - 1.0)
    assert LEAST_GROUPS == window.groups


def test_nothing_is_decided_before_a_first_round_is_over() -> None:
    window = PaceWindow()
    window.begin(100.0)
    window.observe(5.0, 8, 100.5, is_wanted=True)
    assert FIRST_GROUPS == window.groups


async def test_groups_beyond_the_window_wait_their_turn_and_may_be_cancelled() -> None:
    pace = EnvPace()
    begun: list[int] = []
    gate = asyncio.Event()

    async def group(number: int) -> None:
        async with pace.turn():
            begun.append(number)
            await gate.wait()

    first = int(FIRST_GROUPS)
    tasks = [asyncio.create_task(group(number)) for number in range(first + 3)]
    await asyncio.sleep(0)
    assert list(range(first)) == begun
    tasks[first].cancel()
    await asyncio.gather(tasks[first], return_exceptions=True)
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [*range(first), first + 1, first + 2] == begun
    assert "0 groups of" in repr(pace)


async def test_a_loop_that_is_held_up_lets_fewer_groups_run() -> None:
    pace = EnvPace()
    late = PaceWindow(groups=8.0)
    pace._window = late

    async def group() -> None:
        async with pace.turn():
            late.begin(-10.0)
            await asyncio.sleep(0.06)

    busy = [asyncio.create_task(group()) for _ in range(8)]
    await asyncio.sleep(0)
    late.late_s = 4.0
    end = time.thread_time() + 0.06
    while time.thread_time() < end:
        pass
    await asyncio.gather(*busy)
    assert LEAST_GROUPS <= late.groups < 8

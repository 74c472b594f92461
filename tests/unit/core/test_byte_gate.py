from __future__ import annotations

import asyncio

import pytest

from tests.fakes.clock import settle
from tinker_ray.core.byte_gate import ByteGate
from tinker_ray.limits.budget import ByteBudget


class Crowd:
    """Tasks that hold bytes until they are told to go."""

    def __init__(self, capacity_bytes: int) -> None:
        self.budget = ByteBudget(capacity_bytes)
        self.gate = ByteGate(self.budget)
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def come(self, name: str, num_bytes: int) -> None:
        self._go[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, num_bytes))
        await settle()

    async def leave(self, name: str) -> None:
        self._go[name].set()
        await settle()

    async def _hold(self, name: str, num_bytes: int) -> None:
        async with self.gate.hold(num_bytes):
            self.inside.append(name)
            try:
                await self._go[name].wait()
            finally:
                self.inside.remove(name)


async def test_bytes_are_held_first_come_first_served_and_an_oversize_one_passes_alone() -> None:
    crowd = Crowd(100)
    await crowd.come("a", 60)
    await crowd.come("b", 500)
    await crowd.come("c", 1)
    await crowd.come("d", 1)
    assert ["a", "b"] == crowd.inside
    assert "waiting=2" in repr(crowd.gate)
    await crowd.leave("a")
    assert ["b"] == crowd.inside
    await crowd.leave("b")
    assert ["c", "d"] == crowd.inside
    await crowd.leave("c")
    await crowd.leave("d")
    assert 100 == crowd.budget.left_bytes


async def test_who_goes_away_takes_nothing_along() -> None:
    crowd = Crowd(10)
    await crowd.come("a", 20)
    await crowd.come("b", 5)
    await crowd.come("c", 5)
    crowd.tasks["b"].cancel()
    await settle()
    await crowd.leave("a")
    assert ["c"] == crowd.inside
    crowd.tasks["c"].cancel()
    await settle()
    assert 10 == crowd.budget.left_bytes


async def test_who_is_cancelled_when_just_let_in_gives_the_bytes_back() -> None:
    crowd = Crowd(10)
    await crowd.gate.acquire(20)
    await crowd.come("b", 7)
    crowd.gate.release(20)
    crowd.tasks["b"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await crowd.tasks["b"]
    assert 10 == crowd.budget.left_bytes

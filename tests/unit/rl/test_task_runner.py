from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ALL_COMPLETED, CancelledError, wait
from dataclasses import dataclass, field

import pytest

from actors.task import Outcome, Task
from tinker_ray.errors import ActorLostError, ConfigurationError
from tinker_ray.rl.assignment import Assignment
from tinker_ray.rl.task_runner import TaskFuture, TaskRunner


@dataclass
class FakeWorker:
    """Runs tasks when told to; a dead one loses all."""

    number: int
    death: asyncio.Event = field(default_factory=asyncio.Event)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    is_closed: bool = False

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def run(self, task: Task) -> Outcome:
        self.begun.append(task.name)
        ends = [asyncio.ensure_future(event.wait()) for event in (self.gate(task.name), self.death)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.cancelled.append(task.name)
            raise
        finally:
            for end in ends:
                end.cancel()
        if self.death.is_set():
            raise ActorLostError("killed", actor=str(self.number))
        return Outcome(pickle.dumps(f"{task.name} by {self.number}"), seconds=2.0)

    async def close(self) -> None:
        await settle()
        self.is_closed = True


class Bench:
    """A runner with workers of the test."""

    def __init__(self, max_workers: int = 1, tasks_per_worker: int = 2, retries: int = 0) -> None:
        self.workers: list[FakeWorker] = []
        self.failure: Exception | None = None
        self.assignment = Assignment(max_workers, tasks_per_worker, retries)
        self.runner = TaskRunner(self.assignment, self._start)
        self._number = 0

    async def _start(self, number: int) -> FakeWorker:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.workers.append(FakeWorker(number))
        return self.workers[-1]

    async def submit(self, *task_names: str) -> list[TaskFuture[str]]:
        futures: list[TaskFuture[str]] = []
        for name in task_names:
            futures.append(TaskFuture())
            self.runner.take(self._number, Task(b"", name), futures[-1])
            self._number += 1
        await settle()
        return futures


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_future_gets_what_its_task_returned() -> None:
    bench = Bench()
    first, second, third = await bench.submit("a", "b", "c")
    assert [True, True, False] == [future.running() for future in (first, second, third)]
    bench.workers[0].gate("b").set()
    await settle()
    assert ("b by 0", 2.0) == (second.result(0), second.seconds)
    assert ["a", "b", "c"] == bench.workers[0].begun
    for name in ("a", "c"):
        bench.workers[0].gate(name).set()
    await bench.runner.end()
    assert ("a by 0", "c by 0", True) == (first.result(0), third.result(0), third.done())
    assert bench.workers[0].is_closed


async def test_a_waiting_task_is_taken_back_and_a_running_one_stopped() -> None:
    bench = Bench(tasks_per_worker=1)
    running, waiting = await bench.submit("a", "b")
    assert waiting.cancel()
    assert running.cancel()
    await settle()
    assert ({running, waiting}, set()) == wait([running, waiting], 0, ALL_COMPLETED)
    with pytest.raises(CancelledError):
        running.result(0)
    assert (["a"], ["a"]) == (bench.workers[0].begun, bench.workers[0].cancelled)
    await bench.runner.end()
    assert 2 == bench.assignment.account.cancelled


async def test_what_ran_on_a_lost_worker_fails_with_a_typed_error() -> None:
    bench = Bench()
    (future,) = await bench.submit("a")
    bench.workers[0].death.set()
    while not future.done():  # noqa: ASYNC110 - the closing of the worker is under way then
        await asyncio.sleep(0)
    with pytest.raises(ActorLostError, match="killed"):
        future.result(0)
    assert not bench.workers[0].is_closed
    await bench.runner.end()
    assert bench.workers[0].is_closed


async def test_what_may_be_repeated_is_run_again_elsewhere() -> None:
    bench = Bench(retries=1)
    futures = await bench.submit("a", "b")
    bench.workers[0].death.set()
    await settle()
    assert [0, 1] == [worker.number for worker in bench.workers]
    for name in ("a", "b"):
        bench.workers[1].gate(name).set()
    await bench.runner.end()
    assert ["a by 1", "b by 1"] == [future.result(0) for future in futures]
    assert bench.workers[0].is_closed


async def test_the_reason_why_no_worker_starts_reaches_the_tasks() -> None:
    bench = Bench()
    bench.failure = ConfigurationError("the setup hook failed")
    (future,) = await bench.submit("a")
    with pytest.raises(ConfigurationError, match="the setup hook failed"):
        future.result(0)
    bench.failure = None
    (second,) = await bench.submit("b")
    bench.workers[0].gate("b").set()
    await bench.runner.end()
    assert "b by 0" in second.result(0).replace("by 1", "by 0")


async def test_waiting_tasks_are_cancelled_on_request_and_running_ones_end() -> None:
    bench = Bench(tasks_per_worker=1)
    running, waiting = await bench.submit("a", "b")
    bench.runner.cancel_waiting()
    bench.workers[0].gate("a").set()
    await bench.runner.end()
    assert (True, "a by 0") == (waiting.cancelled(), running.result(0))

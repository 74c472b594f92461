"""What an executor has on its event loop: the tasks that are open, and the workers that run them.

Carries out what an :class:`~tinker_ray.rl.assignment.Assignment` decides. Invariant: every future
that was taken comes to an end, and a worker that was started is closed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

from actors.task import Outcome, Task
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.rl.assignment import Assignment, Command, Fail, Run, StartWorker
from tinker_ray.rl.task_codec import result_of

T = TypeVar("T")


class TaskFuture(Future[T]):
    """The future of a task; a running task may be cancelled, too.

    Attributes:
        worker: Where it runs or ran; None while it waits.
        seconds: How long it took there; None before its end.
    """

    worker: str | None = None
    seconds: float | None = None

    def running(self) -> bool:
        """Tell whether a worker is at it."""
        return self.worker is not None and not self.done()


class TaskWorker(Protocol):
    """A worker, as its handle has it."""

    async def run(self, task: Task) -> Outcome:
        """Run a task; cancelling this stops it if it can be stopped.

        Raises:
            ActorLostError: The worker died over it.
        """
        ...

    async def close(self) -> None:
        """End the worker; idempotent."""
        ...


StartTaskWorker: TypeAlias = Callable[[int], Awaitable[TaskWorker]]
"""Starts the nth worker, and returns when it works."""


class TaskRunner:
    """Runs tasks. Belongs to one event loop.

    Args:
        assignment: Decides.
        start_worker: Starts workers.
    """

    def __init__(self, assignment: Assignment, start_worker: StartTaskWorker) -> None:
        self._assignment = assignment
        self._start_worker = start_worker
        self._worker_numbers = itertools.count()
        self._open: dict[int, tuple[Task, TaskFuture[Any]]] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._workers: dict[str, TaskWorker] = {}
        self._start_failure: TinkerError | None = None
        self._changed = asyncio.Event()

    @property
    def num_workers(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    def take(self, number: int, task: Task, future: TaskFuture[Any]) -> None:
        """Take a task; the future gets its end, and cancelling the future cancels the task."""
        loop = asyncio.get_running_loop()
        self._open[number] = (task, future)
        self._obey(self._assignment.submit(number))

        def forward(ended: Future[Any]) -> None:
            if ended.cancelled():
                loop.call_soon_threadsafe(self._cancel, number)

        future.add_done_callback(forward)

    def cancel_waiting(self) -> None:
        """Cancel the tasks that no worker has begun."""
        for _, future in list(self._open.values()):
            if not future.running():
                future.cancel()

    async def end(self) -> None:
        """Wait until no task is open, then end the workers."""
        while self._open or self._runs:
            self._changed.clear()
            await self._changed.wait()
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for worker in self._workers.values():
            self._close(worker)
        self._workers.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _cancel(self, number: int) -> None:
        entry = self._open.pop(number, None)
        if entry is None:
            return
        entry[1].set_running_or_notify_cancel()  # tells those who wait for several futures
        if number in self._runs:
            self._runs[number].cancel()
        self._obey(self._assignment.cancel(number))
        self._changed.set()

    def _obey(self, commands: list[Command]) -> None:
        loop = asyncio.get_running_loop()
        for command in commands:
            match command:
                case Run(number, worker):
                    self._open[number][1].worker = worker
                    self._runs[number] = loop.create_task(self._run(number, worker))
                case StartWorker():
                    _keep(self._starting, loop.create_task(self._start()))
                case Fail(number, reason):
                    error = self._start_failure or ActorLostError(reason, actor="executor")
                    self._settle(number, None, error)

    def _close(self, worker: TaskWorker) -> None:
        _keep(self._closing, asyncio.ensure_future(worker.close()))

    async def _start(self) -> None:
        number = next(self._worker_numbers)
        try:
            worker = await self._start_worker(number)
        except Exception as error:  # noqa: BLE001 - the border of a background task
            lost = ActorLostError(f"no worker could be started: {error!r}", actor="executor")
            self._start_failure = error if isinstance(error, TinkerError) else lost
            self._obey(self._assignment.cannot_start(str(error)))
            self._start_failure = None
        else:
            name = f"worker-{number}"
            self._workers[name] = worker
            self._obey(self._assignment.join(name))

    async def _run(self, number: int, worker: str) -> None:
        task, future = self._open[number]
        try:
            outcome = await self._workers[worker].run(task)
        except ActorLostError as lost:
            self._lose(worker, lost)
        except TinkerError as error:
            self._end(number, None, error)
        else:
            future.seconds = outcome.seconds
            self._end(number, *result_of(outcome))
        finally:
            if self._is_at(number):
                del self._runs[number]
            self._changed.set()

    def _is_at(self, number: int) -> bool:
        """Whether the present run of a task is the one that counts, and not one that was lost."""
        return self._runs.get(number) is asyncio.current_task()

    def _end(self, number: int, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        if self._is_at(number):
            self._settle(number, value, error)
            self._obey(self._assignment.end(number))

    def _lose(self, worker: str, error: ActorLostError) -> None:
        lost = self._workers.pop(worker, None)
        if lost is not None:
            self._close(lost)
            self._obey(self._assignment.lose(worker, str(error)))

    def _settle(self, number: int, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        entry = self._open.pop(number, None)
        if entry is None or not entry[1].set_running_or_notify_cancel():
            return
        if error is None:
            entry[1].set_result(value)
        else:
            entry[1].set_exception(error)


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)

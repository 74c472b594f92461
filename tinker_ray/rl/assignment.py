"""Which task of an executor runs on which worker, and when there are to be more: a pure machine.

Theory of operation. A task waits, runs on a worker, and ends. There is to be one worker for each
open task, up to a number; while some are being started, each gets no more than its share of the
tasks, so that the first one to be there does not take them all. What ran on a worker that is lost
waits again, at the front, if it may be repeated, else it fails.

Knows nothing of clocks, Ray, futures or what tasks do. Invariant: every task that was submitted is
given back once, by its end, its cancellation or a :class:`Fail`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

LOSSES_IN_A_ROW = 3
"""Workers that may be lost one after the other, with no task ended in between."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run a task on a worker."""

    task: int
    worker: str


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start one more worker; answer with ``join`` or ``cannot_start``."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Tell whoever waits that a task will not be run, or not again."""

    task: int
    reason: str


Command: TypeAlias = Run | StartWorker | Fail


@dataclass(slots=True)
class Account:
    """What an executor has done.

    Attributes:
        submitted: Tasks.
        ended: Tasks that returned or raised.
        cancelled: Tasks that nobody waited for any more.
        failed: Tasks that were not run, or not again, because workers were lost.
        repeated: Runs beyond each task's first.
        workers_lost: Workers that died.
        most_running: Most tasks that ran at once.
    """

    submitted: int = 0
    ended: int = 0
    cancelled: int = 0
    failed: int = 0
    repeated: int = 0
    workers_lost: int = 0
    most_running: int = 0

    @property
    def open(self) -> int:
        """Tasks that wait or run."""
        return self.submitted - self.ended - self.cancelled - self.failed


@dataclass(slots=True)
class Assignment:
    """The machine.

    Attributes:
        max_workers: Workers at most.
        tasks_per_worker: Tasks that one runs at once, at most.
        retries: How often a task is run again after it was lost with its worker.
        account: What became of the tasks.
    """

    max_workers: int
    tasks_per_worker: int
    retries: int = 0
    account: Account = field(default_factory=Account)
    _waiting: deque[int] = field(default_factory=deque)
    _running: dict[int, str] = field(default_factory=dict)
    _workers: dict[str, set[int]] = field(default_factory=dict)
    _lost: dict[int, int] = field(default_factory=dict)
    _num_starting: int = 0
    _losses_in_a_row: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether every task has been given back."""
        return not self._waiting and not self._running

    def submit(self, task: int) -> list[Command]:
        """Take a task."""
        self.account.submitted += 1
        self._waiting.append(task)
        return self._decide()

    def end(self, task: int) -> list[Command]:
        """Hear that a task returned or raised; False news of a lost worker's task is ignored."""
        if not self._release(task):
            return []
        self._losses_in_a_row = 0
        self.account.ended += 1
        return self._decide()

    def cancel(self, task: int) -> list[Command]:
        """Hear that nobody waits for a task any more."""
        if task in self._waiting:
            self._waiting.remove(task)
            self._lost.pop(task, None)
        elif not self._release(task):
            return []
        self.account.cancelled += 1
        return self._decide()

    def join(self, worker: str) -> list[Command]:
        """Hear that a worker is there."""
        self._num_starting -= 1
        self._workers[worker] = set()
        return self._decide()

    def lose(self, worker: str, reason: str) -> list[Command]:
        """Hear that a worker is dead."""
        tasks = sorted(self._workers.pop(worker, set()), reverse=True)
        self.account.workers_lost += 1
        self._losses_in_a_row += 1
        failed: list[Command] = []
        for task in tasks:
            del self._running[task]
            losses = self._lost.get(task, 0)
            if losses < self.retries:
                self._lost[task] = losses + 1
                self.account.repeated += 1
                self._waiting.appendleft(task)
            else:
                failed += self._fail(task, reason)
        if self._losses_in_a_row >= LOSSES_IN_A_ROW * self.max_workers:
            return [*failed, *self._give_up(f"one worker after the other is lost: {reason}")]
        return [*failed, *self._decide()]

    def cannot_start(self, reason: str) -> list[Command]:
        """Hear that a worker could not be started."""
        self._num_starting -= 1
        if self._workers or self._num_starting:
            return []
        return self._give_up(reason)

    def _release(self, task: int) -> bool:
        worker = self._running.pop(task, None)
        if worker is None:
            return False
        self._workers[worker].discard(task)
        self._lost.pop(task, None)
        return True

    def _fail(self, task: int, reason: str) -> list[Command]:
        self._lost.pop(task, None)
        self.account.failed += 1
        return [Fail(task, reason)]

    def _give_up(self, reason: str) -> list[Command]:
        """Fail what waits; the next task begins anew."""
        self._losses_in_a_row = 0
        waiting = list(self._waiting)
        self._waiting.clear()
        return [command for task in waiting for command in self._fail(task, reason)]

    def _decide(self) -> list[Command]:
        commands: list[Command] = []
        num_open = len(self._waiting) + len(self._running)
        share = self._share(num_open)
        while self._waiting and self._workers:
            worker = min(self._workers, key=lambda name: len(self._workers[name]))
            if len(self._workers[worker]) >= share:
                break
            task = self._waiting.popleft()
            self._workers[worker].add(task)
            self._running[task] = worker
            commands.append(Run(task, worker))
        self.account.most_running = max(self.account.most_running, len(self._running))
        missing = self._missing(num_open) if self._waiting or self._running else 0
        self._num_starting += missing
        return [*commands, *[StartWorker()] * missing]

    def _missing(self, num_open: int) -> int:
        there = len(self._workers) + self._num_starting
        return max(0, min(self.max_workers, num_open) - there)

    def _share(self, num_open: int) -> int:
        """How many tasks one worker may have now."""
        coming = self._num_starting + self._missing(num_open)
        if not coming:
            return self.tasks_per_worker
        return min(self.tasks_per_worker, -(-num_open // (len(self._workers) + coming)))

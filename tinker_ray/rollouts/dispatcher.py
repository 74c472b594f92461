"""Which group runs where, and how each one ends: a pure machine, events in, commands out.

Theory of operation. A group waits, runs as one attempt after another, and ends::

    GroupOffered -> waiting -> running -> AttemptFinished -> DeliverGroup -> GroupTaken
                       ^          | +----------+ AttemptFailed(infrastructure), WorkerLost: again,
                       with a new number
                                  | any other failure, or retries used up: DropGroup
    RunCancelled: everything that has not ended is dropped

A group holds a permit from its first attempt until the consumer takes it, so a slow consumer stops
the start of new groups. An event about an attempt that is no longer running is ignored and counted:
the attempt lost its race, whatever it brings.

Knows nothing of clocks, event loops, workers or environments. Invariant: every dispatched group
ends exactly once: ``dispatched == delivered + dropped + open``, and ``open`` is 0 at the end.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tinker_ray.rollouts.event import (
    AttemptFailed,
    AttemptFinished,
    CancelAttempt,
    Command,
    DeliverGroup,
    DropGroup,
    DropReason,
    Event,
    GroupOffered,
    GroupTaken,
    RunCancelled,
    StartAttempt,
    WorkerJoined,
    WorkerLost,
)
from tinker_ray.rollouts.worker import AttemptId

DEFAULT_RETRIES = 3


@dataclass(slots=True)
class Account:
    """What became of the groups of a run.

    Attributes:
        dispatched: Groups that were offered.
        delivered: Groups that reached the consumer's queue.
        dropped: Groups that did not, by reason.
        details: The words of the first drop of each reason.
        retried: Attempts beyond each group's first.
        fenced: Events of attempts that had already lost their race.
        peak_in_flight: Most attempts that ran at once.
    """

    dispatched: int = 0
    delivered: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    details: dict[DropReason, str] = field(default_factory=dict)
    retried: int = 0
    fenced: int = 0
    peak_in_flight: int = 0

    @property
    def open(self) -> int:
        """Groups that have not ended."""
        return self.dispatched - self.delivered - self.dropped.total()


@dataclass(slots=True)
class _Worker:
    capacity: int
    running: set[AttemptId] = field(default_factory=set)

    @property
    def free(self) -> int:
        return self.capacity - len(self.running)


class Dispatcher:
    """The machine.

    Args:
        retries: How often a group may be run again after infrastructure failures.
        window: How many groups may be under way or waiting for the consumer; None means twice the
            capacity of the workers.
    """

    def __init__(self, *, retries: int = DEFAULT_RETRIES, window: int | None = None) -> None:
        self.account = Account()
        self._retries = retries
        self._window = window
        self._workers: dict[str, _Worker] = {}
        self._waiting: deque[int] = deque()
        self._retrying: deque[int] = deque()
        self._attempts: dict[int, int] = {}
        self._running: dict[AttemptId, str] = {}
        self._untaken: set[int] = set()

    def __repr__(self) -> str:
        """Show the whole state."""
        return (
            f"Dispatcher(waiting={list(self._waiting)}, retrying={list(self._retrying)}, "
            f"running={dict(self._running)}, untaken={sorted(self._untaken)}, "
            f"workers={self._workers}, {self.account})"
        )

    @property
    def in_flight(self) -> int:
        """Attempts that are running."""
        return len(self._running)

    @property
    def is_hungry(self) -> bool:
        """Whether a group that is offered now would start at once."""
        return not self._waiting and not self._retrying and self._may_start_new()

    def handle(self, event: Event) -> list[Command]:
        """Take in what happened and decide what to do."""
        match event:
            case GroupOffered(group):
                self._offer(group)
            case GroupTaken(group):
                self._untaken.discard(group)
            case WorkerJoined(worker, capacity):
                self._workers[worker] = _Worker(capacity)
            case RunCancelled(detail):
                return self._cancel(detail)
            case _:
                return [*self._end_attempts(event), *self._start()]
        return self._start()

    def _offer(self, group: int) -> None:
        if group in self._attempts:
            message = f"group {group} was offered twice: {self!r}"
            raise ValueError(message)
        self._attempts[group] = 0
        self._waiting.append(group)
        self.account.dispatched += 1

    def _end_attempts(self, event: AttemptFinished | AttemptFailed | WorkerLost) -> list[Command]:
        match event:
            case AttemptFinished(attempt):
                return self._deliver(attempt) if self._stop(attempt) else []
            case AttemptFailed(attempt, "infrastructure", detail):
                return self._again(attempt, detail) if self._stop(attempt) else []
            case AttemptFailed(attempt, kind, detail):
                return [self._drop(attempt.group, kind, detail)] if self._stop(attempt) else []
            case WorkerLost(worker, detail):
                lost = self._workers.get(worker)
                commands: list[Command] = []
                for attempt in sorted(lost.running) if lost else []:
                    self._stop(attempt)
                    commands += self._again(attempt, detail or f"worker {worker} was lost")
                self._workers.pop(worker, None)
                return commands

    def _stop(self, attempt: AttemptId) -> bool:
        """Take an attempt off its worker; False if it had already lost its race."""
        worker = self._running.pop(attempt, None)
        if worker is None:
            self.account.fenced += 1
            return False
        self._workers[worker].running.discard(attempt)
        return True

    def _deliver(self, attempt: AttemptId) -> list[Command]:
        self._untaken.add(attempt.group)
        self.account.delivered += 1
        return [DeliverGroup(attempt)]

    def _drop(self, group: int, reason: DropReason, detail: str) -> DropGroup:
        self.account.dropped[reason] += 1
        self.account.details.setdefault(reason, detail)
        return DropGroup(group, reason, detail)

    def _again(self, attempt: AttemptId, detail: str) -> list[Command]:
        if attempt.number >= self._retries:
            return [self._drop(attempt.group, "infrastructure", detail)]
        self._retrying.append(attempt.group)
        self.account.retried += 1
        return []

    def _may_start_new(self) -> bool:
        if not any(worker.free > 0 for worker in self._workers.values()):
            return False
        window = self._window
        if window is None:
            window = 2 * sum(worker.capacity for worker in self._workers.values())
        return len(self._running) + len(self._retrying) + len(self._untaken) < window

    def _start(self) -> list[Command]:
        commands: list[Command] = []
        while True:
            worker = max(self._workers, key=lambda name: self._workers[name].free, default=None)
            if worker is None or self._workers[worker].free <= 0:
                return commands
            if self._retrying:
                group = self._retrying.popleft()
            elif self._waiting and self._may_start_new():
                group = self._waiting.popleft()
            else:
                return commands
            attempt = AttemptId(group, self._attempts[group])
            self._attempts[group] += 1
            self._running[attempt] = worker
            self._workers[worker].running.add(attempt)
            self.account.peak_in_flight = max(self.account.peak_in_flight, len(self._running))
            commands.append(StartAttempt(attempt, worker))

    def _cancel(self, detail: str) -> list[Command]:
        commands: list[Command] = []
        for attempt, worker in sorted(self._running.items()):
            self._workers[worker].running.discard(attempt)
            commands += [
                CancelAttempt(attempt, worker),
                self._drop(attempt.group, "cancelled", detail),
            ]
        queued = [*self._retrying, *self._waiting]
        commands += [self._drop(group, "cancelled", detail) for group in queued]
        self._running.clear()
        self._retrying.clear()
        self._waiting.clear()
        return commands

"""Which group runs where, and how each one ends: a pure machine, events in, commands out.

Theory of operation. A group waits, runs as one attempt after another, and ends::

    GroupOffered -> waiting -> running -> AttemptFinished -> DeliverGroup -> GroupTaken
                       ^          | |          +--> too stale: DropGroup
                       |          | +--> its step is complete without it: DropGroup
                  with a new number, a fresh environment and the newest policy
                       |          v
                       +------- AttemptFailed, WorkerLost, out of time; budget used up: DropGroup

A group holds a permit from its first attempt until the consumer takes it, so a slow consumer stops
the start of new groups; the :class:`Pace` stops those that would be too stale for training. An
event about an attempt that is no longer running is ignored and counted: the attempt lost its
race, whatever it brings. Failures of the infrastructure, many in a row with no group that ends in
between, halt the run.

Knows nothing of clocks, event loops, workers or environments: the time comes with each event.
Invariant: every dispatched group ends exactly once: ``dispatched == delivered + dropped + open``,
and ``open`` is 0 at the end.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tinker_ray.rollouts.account import Account
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
    HaltRun,
    PolicyPublished,
    RunCancelled,
    RunDrained,
    StartAttempt,
    TimePassed,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
)
from tinker_ray.rollouts.pacing import Pace
from tinker_ray.rollouts.quarantine import POISON, Quarantine
from tinker_ray.rollouts.retry import RetryBudget
from tinker_ray.rollouts.retrying import Retrying
from tinker_ray.rollouts.roster import Roster, Running
from tinker_ray.rollouts.worker import AttemptId

if TYPE_CHECKING:
    from tinker_ray.rollouts.failure import FailureKind

MIN_FAILURES: Final = 32
"""Failures of the infrastructure in a row that never halt a run by default."""

FAILURES_PER_ROOM: Final = 4
"""Failures in a row that halt a run by default, per group that the workers have room for: more than
one moment of trouble can cause."""

GONE_IN_A_ROW: Final = 3
"""Attempts in a row, with no group that ends in between, for which the newest policy was not there
any more, that halt a run: it has to be made anew."""

MAX_HELD_BACK: Final = 1000
"""Builders in quarantine, one after the other, that halt a run: there is nothing else to run."""


@dataclass(slots=True)
class _Open:
    """A group that has not ended."""

    began_s: float | None = None
    attempts: int = 0
    failures: Counter[FailureKind] = field(default_factory=Counter)
    lost_workers: int = 0


class Dispatcher:
    """The machine.

    Args:
        retries: How often a group may be run again.
        window: How many groups may be under way or waiting for the consumer; None means as many as
            the pace allows, or twice the capacity of the workers where it sets no bound.
        pace: How far groups may run ahead of training; by default as far as they like.
        group_s: How long an attempt may take.
        halt_after: Failures of the infrastructure in a row that end the run; None leaves it to the
            size of the crew.
        quarantine: Knows the builders that are not to be run.
        account: Filled in as the run goes on; a new one by default.
    """

    def __init__(  # noqa: PLR0913 - what there is to choose
        self,
        *,
        retries: int | RetryBudget | None = None,
        window: int | None = None,
        pace: Pace | None = None,
        group_s: float | None = None,
        halt_after: int | None = None,
        quarantine: Quarantine | None = None,
        account: Account | None = None,
    ) -> None:
        self.account = Account() if account is None else account
        self._budget = RetryBudget() if retries is None else RetryBudget.of(retries)
        self._window = window
        self._pace = pace or Pace()
        self._group_s = group_s
        self._halt_after = halt_after
        self._quarantine = quarantine or Quarantine()
        self._roster = Roster()
        self._open: dict[int, _Open] = {}
        self._waiting: deque[int] = deque()
        self._retrying = Retrying(self._budget.infrastructure)
        self._num_untaken = 0
        self._newest = -1
        self._failures_in_a_row = 0
        self._gone_in_a_row = 0
        self._held_back_in_a_row = 0
        self._closed_for: tuple[DropReason, str] | None = None

    def __repr__(self) -> str:
        """Show the whole state."""
        return (
            f"Dispatcher(waiting={list(self._waiting)}, {self._retrying!r}, "
            f"untaken={self._num_untaken}, {self._roster!r}, {self._pace!r}, {self.account})"
        )

    @property
    def in_flight(self) -> int:
        """Attempts that are running."""
        return len(self._roster)

    @property
    def is_hungry(self) -> bool:
        """Whether a group that is offered now would start at once."""
        is_idle = self._closed_for is None and not self._waiting
        return is_idle and self._roster.freest() is not None and self._may_start_new()

    @property
    def has_waiting(self) -> bool:
        """Whether groups that were offered wait to be started."""
        return bool(self._waiting or self._retrying)

    @property
    def wants_room(self) -> bool:
        """Whether more workers would start something at once that those there have no room for."""
        is_full = self._closed_for is None and self._roster.freest() is None
        return is_full and (bool(self._retrying) or self._may_start_new())

    @property
    def wake_at(self) -> float | None:
        """When the machine wants to hear that time passed; None if it does not."""
        oldest = self._roster.oldest
        if self._group_s is None or oldest is None:
            return None
        return oldest.began_s + self._group_s

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what happened and decide what to do.

        Args:
            event: What happened.
            now: When, in seconds on a clock that never goes back.

        Raises:
            ValueError: A group was offered twice.
        """
        return [*self._take_in(event, now), *self._start(now)]

    def _take_in(self, event: Event, now: float) -> list[Command]:  # noqa: C901, PLR0911
        match event:
            case GroupOffered(group, key):
                return self._offer(group, key, now)
            case GroupTaken(group):
                self._take(group)
            case WorkerJoined(worker, capacity):
                self._roster.join(worker, capacity)
            case WorkerDraining(worker):
                self._roster.drain(worker)
            case WorkerLost(worker, detail):
                return self._lose(worker, detail, now)
            case AttemptFinished(attempt):
                return self._finish(attempt, now)
            case AttemptFailed(attempt, kind, detail):
                return self._fail(attempt, kind, detail, now)
            case PolicyPublished(version):
                return self._cut_stale(now) if self._pace.publish(version) else []
            case TimePassed():
                return self._time_out(now)
            case RunDrained():
                return self._close("drained", "the run was drained", self._waiting, now)
            case RunCancelled(detail):
                return self._close("cancelled", detail, self._open, now)
        return []

    def _offer(self, group: int, key: str | None, now: float) -> list[Command]:
        if group <= self._newest:
            message = f"group {group} was offered twice or out of order: {self!r}"
            raise ValueError(message)
        self._newest = group
        self._open[group] = _Open()
        self.account.dispatched += 1
        if self._closed_for is not None:
            return [self._drop(group, *self._closed_for, now)]
        if not self._quarantine.holds(key):
            self._waiting.append(group)
            return []
        self._held_back_in_a_row += 1
        commands: list[Command] = [
            self._drop(group, "quarantined", "its builder failed too often in a row", now)
        ]
        if self._held_back_in_a_row >= MAX_HELD_BACK:
            detail = f"{MAX_HELD_BACK} builders one after the other are in quarantine"
            return [*commands, *self._halt(self._held_back_in_a_row, detail, now)]
        return commands

    def _start(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while (placed := self._retrying.place(self._roster) or self._place_new()) is not None:
            group, worker = placed
            record = self._open[group]
            if record.began_s is None:
                record.began_s = now
                self._pace.start()
                self._held_back_in_a_row = 0
            attempt = AttemptId(group, record.attempts)
            record.attempts += 1
            suspected = self._retrying.suspects(record.lost_workers)
            self._roster.start(attempt, Running(worker, self._pace.version, now, suspected))
            commands.append(StartAttempt(attempt, worker, self._pace.version))
        self.account.peak_in_flight = max(self.account.peak_in_flight, self.in_flight)
        return commands

    def _place_new(self) -> tuple[int, str] | None:
        worker = self._roster.freest()
        if worker is None or not self._waiting or not self._may_start_new():
            return None
        return self._waiting.popleft(), worker

    def _may_start_new(self) -> bool:
        return self._pace.may_start and self._has_window()

    def _has_window(self) -> bool:
        """Whether the consumer is not too far behind."""
        if self._window is None and self._pace.is_bounded:
            return True  # a narrower one would leave workers idle while a step is trained
        window = 2 * self._roster.capacity if self._window is None else self._window
        return len(self._roster) + len(self._retrying) + self._num_untaken < window

    def _finish(self, attempt: AttemptId, now: float) -> list[Command]:
        running = self._stop(attempt)
        if running is None:
            return []
        self._failures_in_a_row = self._gone_in_a_row = 0
        place = self._pace.place(running.version)
        if place is None:
            return [self._drop_stale(attempt.group, running.version, now)]
        del self._open[attempt.group]
        self._num_untaken += 1
        self.account.delivered += 1
        commands: list[Command] = [DeliverGroup(attempt, place)]
        if self._pace.deliver(attempt.group, running.version, place):
            commands += [*self._cut_slowest(now), *self._cut_stale(now)]
        return commands

    def _take(self, group: int) -> None:
        staleness = self._pace.take(group)
        if staleness is not None:
            self._num_untaken -= 1
            self.account.staleness[staleness] += 1

    def _stop(self, attempt: AttemptId) -> Running | None:
        """Take an attempt off its worker; None if it had already lost its race."""
        running = self._roster.stop(attempt)
        self.account.fenced += running is None
        return running

    def _cut_slowest(self, now: float) -> list[Command]:
        """End what the step that is complete does not need: what began first is slowest."""
        began = [group for group, record in self._open.items() if record.began_s is not None]
        detail = "its step has its groups without it"
        return self._end(sorted(began)[: self._pace.oversample], "oversampled", detail, now)

    def _cut_stale(self, now: float) -> list[Command]:
        """End what would be too stale even if it finished now."""
        commands: list[Command] = []
        for attempt, running in self._roster:
            if self._pace.place(running.version) is None:
                self._roster.stop(attempt)
                commands.append(CancelAttempt(attempt, running.worker))
                commands.append(self._drop_stale(attempt.group, running.version, now))
        return commands

    def _drop_stale(self, group: int, version: int, now: float) -> DropGroup:
        detail = (
            f"drawn with version {version}, and now it is {version + self._pace.staleness(version)}"
        )
        return self._drop(group, "stale", detail, now)

    def _fail(
        self, attempt: AttemptId, kind: FailureKind, detail: str, now: float
    ) -> list[Command]:
        running = self._stop(attempt)
        if running is None:
            return []
        commands = self._again(attempt.group, kind, detail, now)
        if kind != "gone":
            return [*commands, *self._note_failure(kind, detail, now)]
        if running.version < self._pace.version:  # it is drawn with a newer policy now
            return commands
        self._gone_in_a_row += 1
        if self._gone_in_a_row < GONE_IN_A_ROW:
            return commands
        return [*commands, *self._halt(self._gone_in_a_row, detail, now, kind)]

    def _lose(self, worker: str, detail: str, now: float) -> list[Command]:
        words = detail or f"worker {worker} was lost"
        lost, commands = self._roster.lose(worker), list[Command]()
        for attempt in lost:
            self._open[attempt.group].lost_workers += 1
            commands += self._again(attempt.group, "infrastructure", words, now)
        return [*commands, *self._note_failure("infrastructure", words, now)] if lost else []

    def _time_out(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while self.wake_at is not None and self.wake_at <= now:
            attempt, running = next(iter(self._roster))
            self._roster.stop(attempt)
            commands.append(CancelAttempt(attempt, running.worker))
            detail = f"the group took more than {self._group_s} s"
            commands += self._again(attempt.group, "timeout", detail, now)
        return commands

    def _again(self, group: int, kind: FailureKind, detail: str, now: float) -> list[Command]:
        record = self._open[group]
        record.failures[kind] += 1
        if self._budget.allows(record.failures, kind):
            self._retrying.add(group, record.lost_workers)
            self.account.retries[kind] += 1
            return []
        was_alone = kind == "infrastructure" and self._retrying.suspects(record.lost_workers - 1)
        return [self._drop(group, "deadly" if was_alone else kind, detail, now)]

    def _note_failure(self, kind: FailureKind, detail: str, now: float) -> list[Command]:
        """Count failures in a row, one for each incident, and halt when they are too many."""
        if kind in POISON or kind == "request":
            return []
        self._failures_in_a_row += 1
        most = self._halt_after
        if most is None:
            most = max(MIN_FAILURES, FAILURES_PER_ROOM * self._roster.capacity)
        if self._failures_in_a_row < most:
            return []
        return self._halt(self._failures_in_a_row, detail, now)

    def _halt(
        self, failures: int, detail: str, now: float, kind: FailureKind = "infrastructure"
    ) -> list[Command]:
        if self._closed_for is not None and self._closed_for[0] != "drained":
            return []
        return [*self._close("halted", detail, self._open, now), HaltRun(failures, detail, kind)]

    def _close(
        self, reason: DropReason, detail: str, groups: deque[int] | dict[int, _Open], now: float
    ) -> list[Command]:
        self._closed_for = (reason, detail)
        return self._end(sorted(groups), reason, detail, now)

    def _end(self, groups: list[int], reason: DropReason, detail: str, now: float) -> list[Command]:
        """End groups wherever they are."""
        commands: list[Command] = []
        for group in groups:
            attempt = AttemptId(group, self._open[group].attempts - 1)
            running = self._roster.stop(attempt)
            if running is not None:
                commands.append(CancelAttempt(attempt, running.worker))
            commands.append(self._drop(group, reason, detail, now))
        ended = set(groups)
        self._retrying.remove(ended)
        self._waiting = deque(group for group in self._waiting if group not in ended)
        return commands

    def _drop(self, group: int, reason: DropReason, detail: str, now: float) -> DropGroup:
        record = self._open.pop(group)
        seconds = 0.0
        if record.began_s is not None:
            seconds = now - record.began_s
            self._pace.drop()
        self.account.dropped[reason] += 1
        self.account.details.setdefault(reason, detail)
        return DropGroup(group, reason, detail, record.attempts, seconds)

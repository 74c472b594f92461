"""The dispatcher under random orders of events, against a model that only counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.rollouts import AttemptId, Dispatcher, Pace, Pacing, Quarantine, RetryBudget
from tinker_ray.rollouts.dispatcher import GONE_IN_A_ROW
from tinker_ray.rollouts.event import (
    AttemptFailed,
    AttemptFinished,
    CancelAttempt,
    Command,
    DeliverGroup,
    DropGroup,
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
from tinker_ray.rollouts.failure import FailureKind

GROUP_S = 10.0
FIRST_VERSION = 3
BUDGET = RetryBudget(infrastructure=2, environment=1, timeout=1, stall=0)
KINDS: tuple[FailureKind, ...] = (
    *("infrastructure", "environment", "request"),
    *("gone", "timeout", "stall"),
)


@dataclass
class Started:
    worker: str
    version: int
    at: float


class World:
    """Plays pool, workers, trainer and clock, and checks each command against the rules."""

    def __init__(self, pacing: Pacing, window: int | None, halt_after: int) -> None:
        self.pacing, self.window, self.halt_after = pacing, window, halt_after
        self.version = FIRST_VERSION
        self.now = 0.0
        self.quarantine = Quarantine(2)
        self.dispatcher = Dispatcher(
            retries=BUDGET,
            window=window,
            pace=Pace(pacing, FIRST_VERSION),
            group_s=GROUP_S,
            halt_after=halt_after,
            quarantine=self.quarantine,
        )
        self.capacity: dict[str, int] = {}
        self.draining: set[str] = set()
        self.running: dict[AttemptId, Started] = {}
        self.started: set[int] = set()
        self.lost_under: Counter[int] = Counter()
        self.past: list[AttemptId] = []
        self.delivered: list[int] = []
        self.dropped: dict[int, str] = {}
        self.queue: list[tuple[int, int]] = []
        self.taken = 0
        self.num_offered = 0
        self.num_workers = 0
        self.is_over = False

    def tell(self, event: Event) -> None:
        for command in self.dispatcher.handle(event, self.now):
            self.obey(command)
        self.check()

    def obey(self, command: Command) -> None:
        match command:
            case StartAttempt(attempt, worker, version):
                self.check_start(attempt, worker, version)
                self.past.append(attempt)
                self.running[attempt] = Started(worker, version, self.now)
                self.started.add(attempt.group)
            case CancelAttempt(attempt, worker):
                assert self.running.pop(attempt).worker == worker
            case DeliverGroup(attempt, place):
                assert attempt.group not in self.delivered, "a group was delivered twice"
                self.delivered.append(attempt.group)
                self.queue.insert(place, (attempt.group, self.finishing.version))
                self.check_queue(self.finishing.version)
            case DropGroup(group, reason):
                assert reason != "deadly" or self.lost_under[group] > BUDGET.infrastructure
                assert group not in self.dropped, "a group was dropped twice"
                self.dropped[group] = reason
                assert group not in {attempt.group for attempt in self.running}
            case HaltRun(failures, _, kind):
                assert failures >= (GONE_IN_A_ROW if kind == "gone" else self.halt_after)
                self.is_over = True

    def check_start(self, attempt: AttemptId, worker: str, version: int) -> None:
        assert not self.is_over
        assert attempt not in self.past, "an attempt was started twice"
        assert attempt.group not in {running.group for running in self.running}
        assert version == self.version, "an attempt is bound to the newest version"
        assert worker not in self.draining
        assert sum(one.worker == worker for one in self.running.values()) < self.capacity[worker]
        beside = {other.group for other, one in self.running.items() if one.worker == worker}
        suspects = {group for group in beside | {attempt.group} if self.lost_under[group] >= 2}
        assert attempt.group not in suspects or len(suspects) == 1, "suspects are kept apart"
        if attempt.number == 0:
            counted = len(self.started) - sum(group in self.started for group in self.dropped)
            steps = self.version - FIRST_VERSION + self.pacing.max_staleness + 1
            assert len(self.delivered) < steps * self.pacing.groups_per_step
            assert counted < steps * self.pacing.groups_per_step + self.pacing.oversample
            if self.window is not None:
                assert len(self.running) + len(self.delivered) - self.taken < self.window

    def check_queue(self, newest: int) -> None:
        assert self.version - newest <= self.pacing.max_staleness
        for place, (_, version) in enumerate(self.queue):
            trained_at = FIRST_VERSION + (self.taken + place) // self.pacing.groups_per_step
            assert trained_at - version <= self.pacing.max_staleness

    def check(self) -> None:
        assert not set(self.delivered) & set(self.dropped), "a group ended twice"
        account = self.dispatcher.account
        assert len(self.delivered) == account.delivered
        assert self.taken == account.staleness.total()
        assert Counter(self.dropped.values()) == account.dropped
        assert self.num_offered == account.dispatched
        assert self.num_offered == len(self.delivered) + len(self.dropped) + account.open
        assert self.dispatcher.in_flight == len(self.running)

    def offer(self, number: int) -> None:
        if self.dispatcher.is_hungry or number == 0:
            self.num_offered += 1
            self.tell(GroupOffered(self.num_offered - 1, f"builder-{number}"))

    def join(self, number: int) -> None:
        self.num_workers += 1
        name = f"w{self.num_workers}"
        self.capacity[name] = 1 + number % 3
        self.tell(WorkerJoined(name, self.capacity[name]))

    def drain_worker(self, number: int) -> None:
        if self.capacity:
            worker = sorted(self.capacity)[number % len(self.capacity)]
            self.draining.add(worker)
            self.tell(WorkerDraining(worker))

    def lose(self, number: int) -> None:
        if self.capacity:
            worker = sorted(self.capacity)[number % len(self.capacity)]
            del self.capacity[worker]
            lost = {attempt for attempt, one in self.running.items() if one.worker == worker}
            self.lost_under.update(attempt.group for attempt in lost)
            self.running = {a: one for a, one in self.running.items() if a not in lost}
            self.tell(WorkerLost(worker))

    def pick(self, number: int) -> AttemptId | None:
        if not self.running:
            return None
        attempt = sorted(self.running)[number % len(self.running)]
        self.finishing = self.running.pop(attempt)
        return attempt

    def finish(self, number: int) -> None:
        if attempt := self.pick(number):
            self.tell(AttemptFinished(attempt))

    def fail(self, number: int) -> None:
        if attempt := self.pick(number):
            kind = KINDS[number % len(KINDS)]
            self.quarantine.note_failure(f"builder-{number}", kind)
            self.tell(AttemptFailed(attempt, kind))

    def late(self, number: int) -> None:
        old = [attempt for attempt in self.past if attempt not in self.running]
        if old:
            attempt = old[number % len(old)]
            before = (len(self.delivered), len(self.dropped))
            self.tell(AttemptFinished(attempt) if number % 2 else AttemptFailed(attempt, "stall"))
            assert before == (len(self.delivered), len(self.dropped))

    def take(self, _: int) -> None:
        if self.queue:
            self.taken += 1
            self.tell(GroupTaken(self.queue.pop(0)[0]))

    def publish(self, number: int) -> None:
        if number > 0:
            self.version += 1
        self.tell(PolicyPublished(self.version))

    def wait(self, number: int) -> None:
        self.now += number
        self.tell(TimePassed())
        assert all(self.now - one.at < GROUP_S for one in self.running.values())

    def end(self) -> None:
        """Let everything that was offered end, with a trainer that keeps going."""
        self.join(2)
        for _ in range(50 + 20 * self.num_offered):
            if not self.dispatcher.account.open:
                return
            self.finish(0)
            self.take(0)
            self.publish(1)
        message = f"something never ends: {self.dispatcher!r}"
        raise AssertionError(message)


KINDS_OF_MOVES = (
    *("offer", "offer", "offer", "offer", "join", "lose", "drain_worker"),
    *("finish", "finish", "finish", "fail", "late", "take", "take", "publish", "wait"),
)
MOVES = st.tuples(st.sampled_from(KINDS_OF_MOVES), st.integers(0, 7))


@settings(max_examples=250, deadline=None)
@given(
    moves=st.lists(MOVES, max_size=80),
    pacing=st.builds(Pacing, st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)),
    window=st.one_of(st.none(), st.integers(1, 5)),
    halt_after=st.sampled_from([2, 1000]),
    ending=st.sampled_from([RunCancelled("bye"), RunDrained(), None]),
)
def test_whatever_happens_every_group_ends_once_and_none_is_too_stale(
    moves: list[tuple[str, int]],
    pacing: Pacing,
    window: int | None,
    halt_after: int,
    ending: Event | None,
) -> None:
    world = World(pacing, window, halt_after)
    world.join(2)
    for move, number in moves:
        getattr(world, move)(number)
    if ending is not None:
        world.tell(ending)
    if isinstance(ending, RunCancelled):
        assert world.dispatcher.account.open == 0
    world.end()
    account = world.dispatcher.account
    assert account.dispatched == account.delivered + account.dropped.total()
    assert world.dispatcher.in_flight == 0
    most = sum((2 * BUDGET.infrastructure, BUDGET.environment, BUDGET.timeout)) + 1
    assert max(Counter(attempt.group for attempt in world.past).values(), default=0) <= most

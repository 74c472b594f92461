"""One pass over group builders: the dispatcher's commands carried out as asyncio tasks.

Knows the workers that it is given, and neither opens nor closes them. Invariant: events reach the
dispatcher one at a time, on the event loop, at the moment they happen, however slow the consumer
is.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.env_loop import is_being_cancelled
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.rl.outcome import DroppedGroup, FinishedGroup
from tinker_ray.rl.policy import LivePolicy
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    Dispatcher,
    EnvGroupBuilder,
    Quarantine,
    RolloutParams,
    RolloutsHaltedError,
    RolloutWorker,
    Sampler,
    Selection,
    Timeouts,
    derive_seed,
)
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
from tinker_ray.rollouts.failure import as_rollout_failure
from tinker_ray.rollouts.quarantine import POISON, key_of
from tinker_ray.rollouts.worker import UNLIMITED
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.trace import span

OnDrop = Callable[[DroppedGroup], None]
"""Hears of each group that will not come."""

OFFERS_AT_ONCE = 256
"""Builders that are taken before the event loop has its turn again."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the groups of a run are run.

    Attributes:
        params: How actions are drawn; the seed is that of the run.
        timeouts: How long stages may take.
        min_episodes: How many episodes of a group have to come to their end; None wants all.
        indices: The numbers of the groups, ascending; at least as many as there are builders.
        on_drop: Hears of groups that will not come.
        quarantine: Of the pool.
    """

    params: RolloutParams = field(default_factory=RolloutParams)
    timeouts: Timeouts = UNLIMITED
    min_episodes: int | None = None
    indices: Iterable[int] = field(default_factory=itertools.count)
    on_drop: OnDrop | None = None
    quarantine: Quarantine = field(default_factory=Quarantine)


class RunOwner(Protocol):
    """Hears from a run what concerns the workers."""

    def note_delivery(self) -> None:
        """A worker delivered a group."""
        ...

    def note_loss(self, worker: str, error: ActorLostError) -> None:
        """A worker turned out to be dead."""
        ...

    def note_room(self) -> None:
        """A worker began or ended an attempt."""
        ...


class Run:
    """Drives the groups of one call of ``RolloutPool.run``.

    Attributes:
        policy: Where actions come from.
        account: What became of the groups.
        selection: What was kept and what was cut.
    """

    def __init__(
        self,
        builders: Iterator[EnvGroupBuilder],
        policy: LivePolicy,
        options: RunOptions,
        *,
        dispatcher: Dispatcher,
        owner: RunOwner,
    ) -> None:
        self.policy = policy
        self.account = dispatcher.account
        self.selection = Selection()
        self._builders = builders
        self._options = options
        self._dispatcher = dispatcher
        self._owner = owner
        self._workers: dict[str, RolloutWorker] = {}
        self._open_builders: dict[int, EnvGroupBuilder] = {}
        self._tasks: dict[AttemptId, asyncio.Task[None]] = {}
        self._places: dict[AttemptId, str] = {}
        self._results: dict[AttemptId, FinishedGroup] = {}
        self._ready: deque[FinishedGroup] = deque()
        self._awake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._timer: asyncio.TimerHandle | None = None
        self._offering: asyncio.Handle | None = None
        self._indices = iter(options.indices)
        self._is_begun = False
        self._is_exhausted = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        """Show the dispatcher's state."""
        return f"Run(ready={len(self._ready)}, {self._dispatcher!r})"

    @property
    def in_flight(self) -> int:
        """Groups that are running."""
        return self._dispatcher.in_flight

    def add_worker(self, name: str, worker: RolloutWorker, capacity: int) -> None:
        """Let a worker take part."""
        self._workers[name] = worker
        self._tell(WorkerJoined(name, capacity))

    def lose_worker(self, name: str, detail: str) -> None:
        """Run the groups of a dead worker elsewhere."""
        self._workers.pop(name, None)
        for attempt, placed in self._places.items():
            if placed == name and self._tasks[attempt] is not asyncio.current_task():
                self._tasks[attempt].cancel()
        self._tell(WorkerLost(name, detail))

    def fail(self, error: TinkerError) -> None:
        """End the run with an error, after the groups that are ready."""
        self._error = error
        self._tell(RunCancelled(str(error)))

    def drain(self) -> None:
        """Take no more builders; the groups under way still come."""
        self._is_exhausted = True
        self._tell(RunDrained())

    @property
    def wants_room(self) -> bool:
        """Whether one more worker would begin a group at once."""
        if self._is_exhausted and not self._dispatcher.has_waiting:
            return False
        return self._is_begun and self._dispatcher.wants_room

    def is_on(self, worker: str) -> bool:
        """Whether a group runs on a worker."""
        return worker in self._places.values()

    def drain_worker(self, worker: str) -> None:
        """Begin no more groups on a worker."""
        self._tell(WorkerDraining(worker))

    async def groups(self) -> AsyncGenerator[FinishedGroup]:
        """Yield groups as they finish."""
        self._is_begun = True  # with all workers there, each gets its share of the first groups
        stop_listening = self.policy.listen(self._hear)
        self._hear(self.policy.version)
        try:
            while True:
                while self._ready:
                    group = self._ready.popleft()
                    self._tell(GroupTaken(group.index))
                    yield group
                if self._error is not None:
                    raise self._error
                if self._is_exhausted and self._dispatcher.account.open == 0:
                    return
                self._awake.clear()
                await self._awake.wait()
        finally:
            stop_listening()
            await self.close()

    async def close(self) -> None:
        """Drop what has not ended and wait for the tasks to go; idempotent."""
        self._is_exhausted = True
        self._tell(RunCancelled("the run was closed"))
        if self._timer is not None:
            self._timer.cancel()
        if self._offering is not None:
            self._offering.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _hear(self, version: int) -> None:
        self._tell(PolicyPublished(version))

    def _tell(self, event: Event) -> None:
        self._obey(self._dispatcher.handle(event, self._clock()))
        if self._is_begun:
            self._offer()
        self._set_timer()
        self._awake.set()

    def _set_timer(self) -> None:
        """Arm the timer, unless it is armed: whatever starts later is due later."""
        wake_at = self._dispatcher.wake_at
        if self._timer is None and wake_at is not None:
            self._timer = asyncio.get_running_loop().call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._tell(TimePassed())

    def _offer(self) -> None:
        if self._offering is not None:
            return
        for _ in range(OFFERS_AT_ONCE):
            if self._is_exhausted or self._error is not None or not self._dispatcher.is_hungry:
                return
            self._offer_next()
        self._offering = asyncio.get_running_loop().call_soon(self._offer_more)

    def _offer_more(self) -> None:
        self._offering = None
        self._offer()
        self._set_timer()
        self._awake.set()

    def _offer_next(self) -> None:
        try:
            builder = next(self._builders, None)
        except Exception as error:  # noqa: BLE001 - a border: the consumer's own iterable
            self._error = error
            builder = None
        if builder is None:
            self._is_exhausted = True
            return
        index = next(self._indices)
        self._open_builders[index] = builder
        key = key_of(builder) if self._options.quarantine.has_suspects else None
        self._obey(self._dispatcher.handle(GroupOffered(index, key), self._clock()))

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            try:
                self._carry_out(command)
            except Exception as error:  # noqa: BLE001 - a border: the consumer's own on_drop
                self._error = self._error or error

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartAttempt(attempt, worker, version):
                self._start(attempt, worker, version)
            case CancelAttempt(attempt):
                self._tasks[attempt].cancel()
            case DeliverGroup(attempt, place):
                self._deliver(self._results[attempt], place)
            case DropGroup():
                self._drop(command)
            case HaltRun(failures, detail, kind):
                self._error = RolloutsHaltedError(failures=failures, detail=detail, kind=kind)

    def _deliver(self, group: FinishedGroup, place: int) -> None:
        builder = self._open_builders.pop(group.index)
        if self._options.quarantine.has_suspects:
            self._options.quarantine.note_success(key_of(builder))
        self.selection.deliver(group, group.seconds)
        self._ready.insert(place, group)
        self._owner.note_delivery()

    def _drop(self, drop: DropGroup) -> None:
        builder = self._open_builders.pop(drop.group)
        if drop.reason in POISON:
            self._options.quarantine.note_failure(key_of(builder), drop.reason)
        result = self._results.get(AttemptId(drop.group, drop.attempts - 1))
        self.selection.cut(drop.reason, result, drop.seconds)
        if self._options.on_drop is not None:
            self._options.on_drop(
                DroppedGroup(drop.group, drop.reason, drop.detail, drop.attempts, drop.seconds)
            )

    def _start(self, attempt: AttemptId, worker: str, version: int) -> None:
        work = self._try(attempt, worker, self.policy.sampler, version)
        self._tasks[attempt] = asyncio.get_running_loop().create_task(work)
        self._places[attempt] = worker
        self._tasks[attempt].add_done_callback(lambda _: self._forget(attempt))
        self._owner.note_room()

    def _forget(self, attempt: AttemptId) -> None:
        for table in (self._tasks, self._places, self._results):
            table.pop(attempt, None)
        self._owner.note_room()

    async def _try(self, attempt: AttemptId, worker: str, sampler: Sampler, version: int) -> None:
        try:
            self._results[attempt] = await self._run_group(attempt, worker, sampler, version)
        except ActorLostError as error:
            self._owner.note_loss(worker, error)
        except asyncio.CancelledError:
            if not is_being_cancelled():  # nobody here wanted that: the group has to end somehow
                detail = f"the worker {worker} cancelled it"
                self._tell(AttemptFailed(attempt, "infrastructure", detail))
            raise
        except Exception as error:  # noqa: BLE001 - the border of a background task
            failure = as_rollout_failure(error, stage="run_group")
            self._tell(AttemptFailed(attempt, failure.kind, str(failure)))
        else:
            self._tell(AttemptFinished(attempt))

    async def _run_group(
        self, attempt: AttemptId, worker: str, sampler: Sampler, version: int
    ) -> FinishedGroup:
        builder, options = self._open_builders[attempt.group], self._options
        began_s = self._clock()
        attributes = {names.GROUP: attempt.group, names.ATTEMPT: attempt.number + 1}
        with span(names.ROLLOUT_GROUP, attributes=attributes):
            carrier = inject()
            seed = options.params.seed
            params = replace(
                options.params, seed=None if seed is None else derive_seed(seed, attempt.group)
            )
            group = await self._workers[worker].run_group(
                builder,
                sampler,
                Attempt(attempt, params, carrier, options.timeouts, options.min_episodes),
            )
        return FinishedGroup(
            [] if group.is_far else group.trajectories_G,
            group.final_rewards_G,
            group.metrics_G,
            group.rollout_errors,
            far=group.far if group.is_far else None,
            index=attempt.group,
            attempt=attempt.number,
            tags=builder.logging_tags(),
            carrier=carrier,
            version=version,
            seconds=self._clock() - began_s,
        )

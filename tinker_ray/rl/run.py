"""One pass over group builders: the dispatcher's commands carried out as asyncio tasks.

Knows the workers that it is given, and neither opens nor closes them. Invariant: events reach the
dispatcher one at a time, on the event loop, at the moment they happen, however slow the consumer
is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    Dispatcher,
    EnvGroupBuilder,
    RolloutParams,
    RolloutWorker,
    Sampler,
    Timeouts,
    TrajectoryGroup,
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
    RunCancelled,
    StartAttempt,
    WorkerJoined,
    WorkerLost,
)
from tinker_ray.rollouts.failure import as_rollout_failure
from tinker_ray.rollouts.worker import UNLIMITED
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import Carrier, inject
from tinker_ray.telemetry.trace import span


@dataclass
class FinishedGroup(TrajectoryGroup):
    """A trajectory group, and where it came from.

    Attributes:
        index: The place of its builder in the run, from 0.
        attempt: How many attempts had failed before.
        tags: The builder's ``logging_tags``.
        carrier: The trace of its rollout, for spans that link to it.
    """

    index: int = 0
    attempt: int = 0
    tags: list[str] = field(default_factory=list)
    carrier: Carrier = field(default_factory=dict)


class RunOwner(Protocol):
    """Hears from a run what concerns the workers."""

    def note_delivery(self) -> None:
        """A worker delivered a group."""
        ...

    def note_loss(self, worker: str, error: ActorLostError) -> None:
        """A worker turned out to be dead."""
        ...


class Run:
    """Drives the groups of one call of ``RolloutPool.run``.

    Attributes:
        sampler: Where actions come from.
    """

    def __init__(  # noqa: PLR0913 - what a run consists of
        self,
        builders: Iterator[EnvGroupBuilder],
        sampler: Sampler,
        params: RolloutParams,
        stages: tuple[Timeouts, int | None] = (UNLIMITED, None),
        *,
        dispatcher: Dispatcher,
        owner: RunOwner,
    ) -> None:
        self._builders = builders
        self.sampler = sampler
        self._params = params
        self._timeouts, self._min_episodes = stages
        self._dispatcher = dispatcher
        self._owner = owner
        self._workers: dict[str, RolloutWorker] = {}
        self._open_builders: dict[int, EnvGroupBuilder] = {}
        self._tasks: dict[AttemptId, asyncio.Task[None]] = {}
        self._places: dict[AttemptId, str] = {}
        self._results: dict[AttemptId, FinishedGroup] = {}
        self._ready: deque[FinishedGroup] = deque()
        self._awake = asyncio.Event()
        self._num_offered = 0
        self._is_begun = False
        self._is_exhausted = False
        self._error: TinkerError | None = None

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

    async def groups(self) -> AsyncGenerator[FinishedGroup]:
        """Yield groups as they finish."""
        self._is_begun = True  # with all workers there, each gets its share of the first groups
        self._offer()
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
            await self.close()

    async def close(self) -> None:
        """Drop what has not ended and wait for the tasks to go; idempotent."""
        self._is_exhausted = True
        self._tell(RunCancelled("the run was closed"))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _tell(self, event: Event) -> None:
        self._obey(self._dispatcher.handle(event))
        if self._is_begun:
            self._offer()
        self._awake.set()

    def _offer(self) -> None:
        while not self._is_exhausted and self._error is None and self._dispatcher.is_hungry:
            self._offer_next()

    def _offer_next(self) -> None:
        builder = next(self._builders, None)
        if builder is None:
            self._is_exhausted = True
            return
        index = self._num_offered
        self._num_offered += 1
        self._open_builders[index] = builder
        self._obey(self._dispatcher.handle(GroupOffered(index)))

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case StartAttempt(attempt, worker):
                    self._start(attempt, worker)
                case CancelAttempt(attempt):
                    self._tasks[attempt].cancel()
                case DeliverGroup(attempt):
                    self._ready.append(self._results[attempt])
                    self._open_builders.pop(attempt.group)
                    self._owner.note_delivery()
                case DropGroup(group):
                    self._open_builders.pop(group)

    def _start(self, attempt: AttemptId, worker: str) -> None:
        task = asyncio.get_running_loop().create_task(self._try(attempt, worker))
        self._tasks[attempt] = task
        self._places[attempt] = worker
        task.add_done_callback(lambda _: self._forget(attempt))

    def _forget(self, attempt: AttemptId) -> None:
        for table in (self._tasks, self._places, self._results):
            table.pop(attempt, None)

    async def _try(self, attempt: AttemptId, worker: str) -> None:
        try:
            self._results[attempt] = await self._run_group(attempt, worker)
        except ActorLostError as error:
            self._owner.note_loss(worker, error)
        except Exception as error:  # noqa: BLE001 - the border of a background task
            failure = as_rollout_failure(error, stage="run_group")
            self._tell(AttemptFailed(attempt, failure.kind, str(failure)))
        else:
            self._tell(AttemptFinished(attempt))

    async def _run_group(self, attempt: AttemptId, worker: str) -> FinishedGroup:
        builder = self._open_builders[attempt.group]
        attributes = {names.GROUP: attempt.group, names.ATTEMPT: attempt.number + 1}
        with span(names.ROLLOUT_GROUP, attributes=attributes):
            carrier = inject()
            seed = self._params.seed
            params = replace(
                self._params, seed=None if seed is None else derive_seed(seed, attempt.group)
            )
            group = await self._workers[worker].run_group(
                builder,
                self.sampler,
                Attempt(attempt, params, carrier, self._timeouts, self._min_episodes),
            )
        return FinishedGroup(
            group.trajectories_G,
            group.final_rewards_G,
            group.metrics_G,
            group.rollout_errors,
            index=attempt.group,
            attempt=attempt.number,
            tags=builder.logging_tags(),
            carrier=carrier,
        )

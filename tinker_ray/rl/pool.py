"""`RolloutPool`: groups of environments go in, finished groups come out in completion order.

Carries out what the :class:`~tinker_ray.rollouts.Dispatcher` decides; decides nothing itself but
when a lost worker is replaced. Knows nothing of how a worker runs a group. Invariant: when a run
ends, however it ends, none of its tasks is left, and every group that it dispatched was delivered
or dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from actors.env_loop import at_once
from actors.env_threads import MAX_THREADS
from actors.worker_options import WorkerOptions
from tinker_ray.errors import ActorLostError, ConfigurationError, StaleHandleError, TinkerError
from tinker_ray.rl import placement
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.placement import PoolWorker
from tinker_ray.rl.policy import LivePolicy
from tinker_ray.rl.run import OnDrop, Run, RunOptions
from tinker_ray.rollouts import (
    Account,
    Dispatcher,
    EnvGroupBuilder,
    Pace,
    Pacing,
    Quarantine,
    RetryBudget,
    RolloutParams,
    Sampler,
    SelectionAccount,
    Timeouts,
)
from tinker_ray.rollouts.far import FAR_BYTES
from tinker_ray.rollouts.quarantine import QUARANTINE_AFTER
from tinker_ray.rollouts.worker import UNLIMITED

DEFAULT_RETRIES = RetryBudget()

SHRINK_AFTER_S = 60.0

LOSSES_PER_WORKER = 3
"""Workers that may be lost in a row, per worker of the pool, with no group delivered in between; at
least as many as one group may cost."""


OpenWorker = Callable[[Sampler, int], Awaitable[PoolWorker]]
"""Opens the nth worker of a pool, close to the sampler; replacements go on counting."""


class RolloutPool:
    """Rollout workers for the length of an ``async with`` block.

    Args:
        workers: How many.
        max_workers: How many there may be while groups wait for room; None leaves it at
            ``workers``, which is also the number that it goes back to.
        shrink_after_s: How long fewer workers have to be enough before one is closed, in seconds.
        groups_per_worker: How many groups each runs at once.
        retries: How often a group is run again, with fresh environments, by class of failure; a
            number stands for the infrastructure alone.
        window: How many groups may be under way or not yet taken; None means as many as a run's
            pacing allows, and twice the capacity in a run without pacing.
        timeouts: How long each stage of a group may take.
        min_episodes: A group of which so many episodes come to their end counts without those that
            fail; None wants all.
        quarantine_after: A builder whose groups fail for good so many times in a row is not run
            again; None runs it for ever.
        halt_after: Failures of the infrastructure in a row, with no group that ends in between,
            that end a run; None chooses by the number of groups that run at once.
        setup: A function that each worker process calls once, before anything else.
        num_cpus: Logical CPUs of a worker on a cluster; None takes 0.1, for environments that wait
            more than they compute.
        num_gpus: Its logical GPUs.
        resources: Its custom resources, which also pin workers to the nodes that have them.
        runtime_env: Ray's, for the workers.
        threads: How many blocking calls of environments a worker makes at once.
        far_bytes: On a cluster, from which size on, in bytes of tokens and logprobs, the
            trajectories of a group stay on the worker's node until they are needed; None sends all
            along.
        open_worker: Opens a worker; by default where the sampler's session is: in this process
            or, on a cluster, as an actor.

    Raises:
        ConfigurationError: A number is out of its range, or there is a key in ``runtime_env``.

    Attributes:
        account: What became of the groups of the newest run.
    """

    def __init__(  # noqa: PLR0913 - what there is to choose
        self,
        workers: int = 2,
        *,
        max_workers: int | None = None,
        shrink_after_s: float = SHRINK_AFTER_S,
        groups_per_worker: int = 16,
        retries: int | RetryBudget = DEFAULT_RETRIES,
        window: int | None = None,
        timeouts: Timeouts = UNLIMITED,
        min_episodes: int | None = None,
        quarantine_after: int | None = QUARANTINE_AFTER,
        halt_after: int | None = None,
        setup: Callable[[], object] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        threads: int = MAX_THREADS,
        far_bytes: int | None = FAR_BYTES,
        open_worker: OpenWorker | None = None,
    ) -> None:
        options = WorkerOptions(
            setup=setup,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            runtime_env=runtime_env or {},
            threads=threads,
            far_bytes=far_bytes,
        )
        self._options = RunOptions(
            timeouts=timeouts,
            min_episodes=min_episodes,
            quarantine=Quarantine(quarantine_after),
        )
        self._halt_after = halt_after
        self._num_workers = workers
        self._max_workers = workers if max_workers is None else max_workers
        if not 1 <= workers <= self._max_workers:
            message = f"workers={workers!r}, max_workers={max_workers!r}: at least 1, and no more"
            raise ConfigurationError(f"{message} workers than max_workers")
        self._shrink_after_s = shrink_after_s
        self._shrinking: asyncio.TimerHandle | None = None
        self._retiring: dict[str, PoolWorker] = {}
        self._peak_in_flight = 0
        self._groups_per_worker = groups_per_worker
        self._retries = RetryBudget.of(retries)
        self._window = window
        self._open_worker = open_worker or partial(placement.open_worker, options=options)
        self._workers: dict[str, PoolWorker] = {}
        self._num_opened = 0
        self._losses_in_a_row = 0
        self._runs: set[Run] = set()
        self._replacements: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._opening = asyncio.Lock()
        self._newest: Run | None = None
        self.account = Account()

    async def __aenter__(self) -> Self:
        """Let runs begin; each opens the workers that are missing, near its sampler."""
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close runs and workers."""
        await self.close()

    def __repr__(self) -> str:
        """Show workers and runs."""
        return f"RolloutPool(workers={sorted(self._workers)}, runs={list(self._runs)})"

    @property
    def in_flight(self) -> int:
        """Groups that are running."""
        return sum(run.in_flight for run in self._runs)

    async def run(  # noqa: PLR0913 - what there is to choose
        self,
        builders: Iterable[EnvGroupBuilder],
        policy: Sampler | LivePolicy,
        params: RolloutParams | None = None,
        *,
        pacing: Pacing | None = None,
        first_index: int = 0,
        indices: Iterable[int] | None = None,
        on_drop: OnDrop | None = None,
        account: Account | None = None,
    ) -> AsyncGenerator[FinishedGroup]:
        """Run a group of environments per builder and yield the groups as they finish.

        Builders are taken from the iterable as room appears, so it may be endless. A group that
        fails for good is dropped, counted in :attr:`account`, and told to ``on_drop``.

        Args:
            builders: One per group; ``FinishedGroup.index`` counts them.
            policy: Where actions come from: one sampler for the whole run, or one that is replaced
                as training goes on. A group stays with what was newest when its attempt began.
            params: How actions are drawn; the seed of a group follows from its index.
            pacing: How groups keep step with training; None starts them as there is room.
            first_index: The number of the first builder.
            indices: The numbers of the builders, ascending, where they do not follow each other.
            on_drop: Called with each group that will not come.
            account: Filled in as the run goes on; by default a new one.

        Raises:
            RolloutsHaltedError: Nothing worked any more.
            ActorLostError: All workers are lost and replacements are lost as well.
            StaleHandleError: The pool is not open.
        """
        if not self._is_open:
            raise StaleHandleError("the rollout pool is not open: use `async with RolloutPool(…)`")
        live = policy if isinstance(policy, LivePolicy) else LivePolicy(policy)
        await self._open_missing(live.sampler)
        run = Run(
            iter(builders),
            live,
            replace(
                self._options,
                params=params or RolloutParams(),
                indices=itertools.count(first_index) if indices is None else indices,
                on_drop=on_drop,
            ),
            dispatcher=self._dispatcher(Pace(pacing, live.version), account),
            owner=self,
        )
        self.account, self._newest = run.account, run
        self._runs.add(run)
        try:
            for name, worker in self._workers.items():
                run.add_worker(name, worker, self._groups_per_worker)
            async with contextlib.aclosing(run.groups()) as groups:
                async for group in groups:
                    yield group
        finally:
            self._runs.discard(run)

    def drain(self) -> None:
        """Take no more builders; the runs end when the groups that are under way have come."""
        for run in self._runs:
            run.drain()

    def take_selection(self) -> SelectionAccount:
        """Say what the newest run has kept and cut since this was last asked."""
        return self._newest.selection.take() if self._newest else SelectionAccount()

    def _dispatcher(self, pace: Pace, account: Account | None) -> Dispatcher:
        return Dispatcher(
            account=account,
            retries=self._retries,
            window=self._window,
            pace=pace,
            group_s=self._options.timeouts.group_s,
            halt_after=self._halt_after,
            quarantine=self._options.quarantine,
        )

    async def close(self) -> None:
        """End runs, then workers; idempotent."""
        self._is_open = False
        if self._shrinking is not None:
            self._shrinking.cancel()
        for task in self._replacements:
            task.cancel()
        await asyncio.gather(*self._replacements, return_exceptions=True)
        await asyncio.gather(*(run.close() for run in self._runs))
        workers = [*self._workers.values(), *self._retiring.values()]
        self._workers.clear()
        self._retiring.clear()
        await asyncio.gather(*(worker.close() for worker in workers), return_exceptions=True)

    async def _open_missing(self, sampler: Sampler) -> None:
        async with self._opening:
            missing = self._num_workers - len(self._workers) - len(self._replacements)
            await at_once([self._open(sampler) for _ in range(missing)])

    async def _open(self, sampler: Sampler) -> None:
        number = self._num_opened
        self._num_opened += 1
        worker = await self._open_worker(sampler, number)
        if not self._is_open:
            await worker.close()
            raise StaleHandleError("the rollout pool was closed while a worker was opened")
        name = f"rollout-{number}"
        self._workers[name] = worker
        for run in self._runs:
            run.add_worker(name, worker, self._groups_per_worker)
        self._watch_size()

    def note_delivery(self) -> None:
        """Hear from a run that workers do their work."""
        self._losses_in_a_row = 0

    def note_room(self) -> None:
        """Hear from a run that an attempt has begun or ended."""
        self._peak_in_flight = max(self._peak_in_flight, self.in_flight)
        for name in [name for name in self._retiring if not self._is_busy(name)]:
            worker = self._retiring.pop(name)
            for run in self._runs:
                run.lose_worker(name, "it was closed")
            self._in_background(self._close_worker(worker))
        opened = len(self._workers) + len(self._replacements)
        if self._is_open and not self._replacements and opened < self._max_workers:
            wanting = next((run for run in self._runs if run.wants_room), None)
            if wanting is not None:
                self._in_background(self._replace(wanting.policy.sampler))

    def _is_busy(self, worker: str) -> bool:
        return any(run.is_on(worker) for run in self._runs)

    def _watch_size(self) -> None:
        if self._shrinking is None and len(self._workers) > self._num_workers:
            loop = asyncio.get_running_loop()
            self._shrinking = loop.call_later(self._shrink_after_s, self._shrink)

    def _shrink(self) -> None:
        """Retire a worker if the others would have had room for everything lately."""
        self._shrinking = None
        room = (len(self._workers) - 1) * self._groups_per_worker
        if len(self._workers) > self._num_workers and self._peak_in_flight <= room:
            name = next(reversed(self._workers))
            self._retiring[name] = self._workers.pop(name)
            for run in self._runs:
                run.drain_worker(name)
        self._peak_in_flight = self.in_flight
        self._watch_size()
        self.note_room()

    async def _close_worker(self, worker: PoolWorker) -> None:
        with contextlib.suppress(TinkerError):  # it may be dead
            await worker.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    def note_loss(self, worker: str, error: ActorLostError) -> None:
        """Hear from a run that a worker is dead, and replace it."""
        was_retiring = self._retiring.pop(worker, None) is not None
        if not was_retiring and self._workers.pop(worker, None) is None:
            return
        for run in self._runs:
            run.lose_worker(worker, str(error))
        if was_retiring:
            return
        sampler = next(iter(self._runs)).policy.sampler
        self._losses_in_a_row += 1
        by_one_group = self._retries.infrastructure + 1  # it is dropped, and the others go on
        if self._losses_in_a_row <= max(LOSSES_PER_WORKER * self._num_workers, by_one_group):
            self._in_background(self._replace(sampler))
        elif not self._workers:
            self._give_up(error)

    async def _replace(self, sampler: Sampler) -> None:
        failure: TinkerError | None = None
        try:
            await self._open(sampler)
        except TinkerError as error:
            failure = error
        self._replacements -= {asyncio.current_task()}
        if failure is not None and not self._workers and not self._replacements:
            self._give_up(failure)

    def _give_up(self, error: TinkerError) -> None:
        lost = ActorLostError(f"no rollout worker is left: {error}", actor="rollout")
        lost.__cause__ = error
        for run in self._runs:
            run.fail(lost)

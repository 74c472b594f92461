"""Where the environments of a process run: coroutines on one event loop, what blocks in threads.

Knows nothing of Ray. Invariant: an environment that hangs costs its own group and one thread; when
so many hang that the process cannot be trusted any more, every further group is refused with an
error of the infrastructure, so that a pool replaces the worker.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from actors.env_loop import EnvLoop, at_once, is_being_cancelled
from actors.env_pace import EnvPace
from actors.env_threads import MAX_THREADS, EnvThreads
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.rollouts import Policy, RolloutFailedError, TrajectoryGroup, run_group
from tinker_ray.rollouts.host import LimitReachedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from tinker_ray.rollouts import Attempt, EnvGroupBuilder, Timeouts

T = TypeVar("T")

MAX_HANGING = 32
"""Threads that may hang before the worker gives itself up."""
STUCK_S = 10.0
"""Least time for which the event loop may be blocked before the worker gives itself up."""


class EnvHost:
    """Runs groups of environments beside the event loop that owns it.

    Args:
        name: Of the worker.
        threads: How many blocking calls may run at once.
        max_hanging: How many of them may hang before the worker gives itself up.
        stuck_s: For how long at least the event loop may be blocked before it does so.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int = MAX_THREADS,
        max_hanging: int = MAX_HANGING,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._name = name
        self._loop = EnvLoop()
        self._threads = EnvThreads(threads)
        self._pace = EnvPace()
        self._max_hanging = max_hanging
        self._may_block_s = stuck_s
        self._stuck_s = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        """Show the threads."""
        return f"EnvHost({self._pace!r}, {self._threads!r})"

    async def run_group(
        self, builder: EnvGroupBuilder, policy: Policy, attempt: Attempt
    ) -> TrajectoryGroup:
        """Run a group on the environments' event loop; cancelling this cancels it.

        Raises:
            RolloutFailedError: An environment or the sampler raised, or took too long.
            ActorLostError: So much hangs here that the worker has to be replaced.
        """
        self._check()
        running = asyncio.ensure_future(self._loop.run(self._in_turn(builder, policy, attempt)))
        running.add_done_callback(_look_at)
        longest_s = _longest(attempt.timeouts)
        limit_s = None if longest_s is None else max(longest_s, self._may_block_s)
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=limit_s)
                if not running.done() and limit_s is not None:
                    await self._check_loop(limit_s)
                    self._check()
            return running.result()
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            raise self._cancelled_from_within() from None
        finally:
            running.cancel()

    async def aclose(self) -> None:
        """Cancel the groups and let the threads end; idempotent."""
        self._is_closed = True
        await self._loop.aclose()
        self._threads.close()

    async def _in_turn(
        self, builder: EnvGroupBuilder, policy: Policy, attempt: Attempt
    ) -> TrajectoryGroup:
        here = asyncio.current_task()
        assert here is not None  # noqa: S101 - for the type checker: a coroutine runs in one
        here.add_done_callback(_look_at)
        async with self._pace.turn():
            return await run_group(
                builder,
                policy,
                host=self,
                timeouts=attempt.timeouts,
                min_episodes=attempt.min_episodes,
            )

    # --- what episodes call, on the environments' event loop --------------------------------------

    async def call(
        self,
        method: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - of the user's method
        limit_s: float | None = None,
        **keywords: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Await a coroutine function here; call any other function in a thread.

        Raises:
            LimitReachedError: It took longer than ``limit_s`` seconds.
        """
        if inspect.iscoroutinefunction(method):
            return await self.within(method(*arguments, **keywords), limit_s)
        value = await self._threads.call(functools.partial(method, *arguments, **keywords), limit_s)
        return await self.within(value, limit_s) if inspect.isawaitable(value) else value

    async def within(self, work: Awaitable[T], limit_s: float | None) -> T:
        """Await something.

        Raises:
            LimitReachedError: It took longer than ``limit_s`` seconds, and was cancelled.
        """
        if limit_s is None:
            return await work
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            raise LimitReachedError(limit_s) from None

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
        """Run coroutines concurrently; the first failure cancels the others and is raised."""
        return await at_once(coroutines)

    async def to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that is not cut short when its caller is cancelled."""
        task = asyncio.ensure_future(work)
        cancelled = False
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        task.result()

    def _cancelled_from_within(self) -> TinkerError:
        """Tell the end of the group from that of the worker."""
        if self._is_closed:
            return ActorLostError(f"{self._name} was closed", actor=self._name)
        return RolloutFailedError(
            kind="environment", stage="the group", detail="CancelledError: it cancelled itself"
        )

    # --- trust ------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse to go on when too much hangs.

        Raises:
            ActorLostError: It does.
        """
        hanging = self._threads.num_hanging
        if self._stuck_s:
            raise ActorLostError(
                f"{self._name} is given up: a coroutine of an environment has blocked its event "
                f"loop for {self._stuck_s:g} s (methods that block belong into a plain `def`)",
                actor=self._name,
            )
        if hanging > self._max_hanging:
            raise ActorLostError(
                f"{self._name} is given up: {hanging} threads hang in environments",
                actor=self._name,
            )

    async def _check_loop(self, limit_s: float) -> None:
        """Find out whether the environments' event loop turns within so many seconds."""
        beat = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop.loop)
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.wrap_future(beat)
        except TimeoutError:
            self._stuck_s = limit_s


def _look_at(ended: asyncio.Future[TrajectoryGroup]) -> None:
    """Look at an end that may come together with a cancellation, after which nobody else does."""
    if not ended.cancelled():
        ended.exception()


def _longest(timeouts: Timeouts) -> float | None:
    """The longest time that an environment has for one call; None if there is a call without."""
    limits = (timeouts.setup_s, timeouts.step_s, timeouts.grading_s)
    found = [limit for limit in limits if limit is not None]
    return max(found) if found else None

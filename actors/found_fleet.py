"""The samplers of a session, from a process that did not start them.

Looks up which ones there are while it has samples: the owner starts and ends them as it sees fit.
Invariant: samples do not wait for a session that is over.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from actors.asking import ask
from tinker_ray.errors import ActorLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.handles.remote import RemoteActor
    from actors.handles.sampler import SamplerPoolHandle
    from tinker_ray.errors import TinkerError

logger = logging.getLogger(__name__)

LOOK_S = 2.0
ANSWER_S = 10.0


class FoundFleet:
    """Knows the samplers that another process started.

    Args:
        names: Of those that it knows of.
        find: Returns the actor of a name.
        living: Says the names of the actors of the session, samplers or not, None if it cannot
            be known; blocks.
        session: The name of the session's own actor.
        prefix: What the names of samplers begin with.
    """

    def __init__(
        self,
        names: Iterable[str],
        find: Callable[[str], RemoteActor],
        living: Callable[[], set[str] | None],
        *,
        session: str,
        prefix: str,
    ) -> None:
        self._names = tuple(names)
        self._find = find
        self._ask = living
        self._session = session
        self._prefix = prefix
        self._pool: SamplerPoolHandle | None = None
        self._woken = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._letting_go: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def begin(self, pool: SamplerPoolHandle) -> None:
        """Add the samplers that are known of, and see to the pool until closed."""
        self._pool = pool
        for name in self._names:
            pool.add(self._find(name))
        self._looking = asyncio.get_running_loop().create_task(self._look(pool))

    def wake(self) -> None:
        """Note that there are samples."""
        self._woken.set()

    def came_up(self, name: str, node: str) -> None:
        """Do nothing: who comes up is given samples by the pool."""

    def is_gone(self, name: str, error: TinkerError) -> None:
        """Forget a sampler; its owner may have started others."""
        if self._pool is None or self._is_closed:
            return
        self._let_go(self._pool.drop(name))
        if not isinstance(error, ActorLostError) and not self._pool.samplers:
            self._pool.fail_waiting(error)
        self._woken.set()

    async def aclose(self) -> None:
        """Look no more; idempotent."""
        self._is_closed = True
        tasks = [*self._letting_go, *([self._looking] if self._looking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, pool: SamplerPoolHandle) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            living: set[str] | None = None
            try:
                living = await ask(self._ask, ANSWER_S)
            except Exception:  # the border to Ray, whose head may be away for a while
                logger.warning("the samplers could not be looked up", exc_info=True)
            if living is not None:
                self._compare(pool, living)
            await asyncio.sleep(LOOK_S)
            if pool.num_open:
                self._woken.set()

    def _compare(self, pool: SamplerPoolHandle, living: set[str]) -> None:
        there = {name for name in living if name.startswith(self._prefix)}
        for name in there - set(pool.samplers):
            pool.add(self._find(name))
        for name in set(pool.samplers) - there:
            self._let_go(pool.drop(name))
        if self._session not in living and not pool.samplers:
            pool.fail_waiting(
                ActorLostError("the session's samplers are gone: its owner has ended")
            )

    def _let_go(self, remote: RemoteActor | None) -> None:
        if remote is not None:
            task = asyncio.get_running_loop().create_task(remote.let_go())
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)

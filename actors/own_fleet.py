"""The samplers of a session, from the process that starts them.

Carries :class:`actors.pool_size.PoolSize`: tells it what there is to do and which nodes there are,
and does what it says. Looks once a second while there are samples, seldom otherwise. Invariant: no
answer of an actor or of Ray is waited for without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from actors.asking import ask
from actors.pool_size import Drain, End, PoolSize, Start
from tinker_ray.errors import ActorLostError, StaleHandleError, TinkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from actors.handles.remote import RemoteActor
    from actors.handles.sampler import SamplerPoolHandle
    from actors.pool_size import Command, PoolBounds
    from actors.sampler import SamplerState

logger = logging.getLogger(__name__)

LOOK_S = 1.0
SELDOM_S = 5.0
ANSWER_S = 5.0
"""How long a sampler may take to say how it is doing; then what it said last holds."""
DRAIN_S = 5.0
EMPTY_LOOKS = 2
"""So often in a row a sampler that drains has nothing before it is ended: answers may be on their
way."""


class OwnFleet:
    """Starts, drains and ends the samplers of a session.

    Args:
        bounds: How many there may be.
        start: Starts one of a number on a node, or, for None, wherever Ray likes.
        nodes: Says which nodes there are and how many logical CPUs they have; blocks.
        home: The node that is preferred.
        patience_s: How long samples wait for the first sampler.
    """

    def __init__(
        self,
        bounds: PoolBounds,
        start: Callable[[int, str | None], RemoteActor],
        nodes: Callable[[], Mapping[str, float] | None],
        home: str = "",
        *,
        patience_s: float = 300.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = PoolSize(bounds, self._loop.time(), home)
        self._start = start
        self._nodes = nodes
        self._patience_s = patience_s
        self._pool: SamplerPoolHandle | None = None
        self._numbers: dict[str, int] = {}
        self._draining: dict[str, int] = {}
        self._ready_at = self._loop.time()
        self._looking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"OwnFleet({self._size!r})"

    def begin(self, pool: SamplerPoolHandle) -> None:
        """Start the samplers that are always there, and see to the pool until closed."""
        self._pool = pool
        now = self._loop.time()
        self._size.on_nodes(self._nodes() or {}, now)
        self._carry_out(self._size.decide(now))
        self._looking = self._loop.create_task(self._look())

    def wake(self) -> None:
        """Note that there are samples."""
        self._woken.set()

    def came_up(self, name: str, node: str) -> None:
        """Note that a sampler works."""
        if name in self._numbers:
            self._size.on_ready(self._numbers[name], node)
            self._ready_at = self._loop.time()
            self._say_who_comes()

    def is_gone(self, name: str, error: TinkerError) -> None:
        """Replace a sampler that is dead for good, or cannot work where it is."""
        number = self._numbers.get(name)
        if number is None or self._is_closed:
            return
        logger.warning("the sampler %s is replaced: %s", name, error)
        self._size.on_lost(number, self._loop.time())
        self._end(name, drain_s=0.0)
        pool = self._living()
        is_hopeless = self._size.has_failed_everywhere and not _able(pool)
        if is_hopeless and not isinstance(error, ActorLostError):
            pool.fail_waiting(error)  # no node has a key, say
        self._decide()

    async def aclose(self) -> None:
        """Start and end no more; idempotent. The samplers are the pool's to end."""
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)  # they end soon by themselves

    # --- looking --------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            try:
                busy = await self._look_once()
            except Exception:  # the border to Ray, whose head may be away for a while
                logger.warning("the samplers could not be looked at", exc_info=True)
                busy = True
            self._woken.clear()
            if busy:
                await asyncio.sleep(LOOK_S)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SELDOM_S):
                        await self._woken.wait()
                await asyncio.sleep(0)

    async def _look_once(self) -> bool:
        """Learn how things are, act on it, and tell whether there is anything to do."""
        pool = self._living()
        states = await asyncio.gather(*(self._state(name) for name in tuple(self._numbers)))
        with contextlib.suppress(TimeoutError):  # then what was known of the nodes holds
            nodes = await ask(self._nodes, ANSWER_S)
            if nodes is None:
                text = "this process is not connected to its Ray cluster any more"
                pool.fail_waiting(StaleHandleError(text))
                return False
            self._carry_out(self._size.on_nodes(nodes, self._loop.time()))
        now, load = self._loop.time(), 0
        for name, state in states:
            load += self._note(name, state)
        self._decide()
        if _able(pool) or not pool.num_waiting:
            self._ready_at = now
        elif now - self._ready_at > self._patience_s:
            text = f"no sampler of the session came up within {self._patience_s:g} s"
            pool.fail_waiting(ActorLostError(text))
        return bool(load or pool.num_open or self._draining or self._size.num_starting)

    async def _state(self, name: str) -> tuple[str, SamplerState | None]:
        sampler = self._living().samplers.get(name)
        remote = sampler.remote if sampler is not None and sampler.member.is_ready else None
        if remote is None:
            return name, None
        try:
            async with asyncio.timeout(ANSWER_S):
                return name, await remote.control("state")
        except (TimeoutError, TinkerError):
            return name, None

    def _note(self, name: str, state: SamplerState | None) -> int:
        """Take in what a sampler said; return its load."""
        sampler = self._living().samplers.get(name)
        if sampler is None:
            return 0
        member = sampler.member
        if state is not None:
            member.others = max(state.load - member.own, 0)
        self._size.on_load(self._numbers[name], member.load)
        if state is not None and name in self._draining:
            if not state.is_ending:  # it did not hear of it, or was started again since
                self._spawn(self._retire(sampler.remote))
            self._draining[name] = 0 if member.load else self._draining[name] + 1
            if self._draining[name] >= EMPTY_LOOKS:
                self._carry_out(self._size.on_empty(self._numbers[name]))
        return member.load

    # --- acting ---------------------------------------------------------------------------------

    def _decide(self) -> None:
        self._size.on_waiting(self._living().num_waiting)
        self._carry_out(self._size.decide(self._loop.time()))

    def _carry_out(self, commands: Iterable[Command]) -> None:
        names = {number: name for name, number in self._numbers.items()}
        for command in commands:
            if isinstance(command, Start):
                self._start_one(command)
            elif isinstance(command, Drain):
                self._drain(names[command.number])
            elif isinstance(command, End):
                self._end(names[command.number], drain_s=DRAIN_S)
        self._say_who_comes()

    def _start_one(self, command: Start) -> None:
        remote = self._start(command.number, command.node)
        self._numbers[remote.name] = command.number
        self._living().add(remote, command.node or "")

    def _drain(self, name: str) -> None:
        pool = self._living()
        pool.retire(name)
        self._draining[name] = 0
        self._spawn(self._retire(pool.samplers[name].remote))

    async def _retire(self, remote: RemoteActor) -> None:
        """Have other processes' samples refused, too."""
        with contextlib.suppress(TinkerError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await remote.control("retire")

    def _end(self, name: str, *, drain_s: float) -> None:
        del self._numbers[name]
        self._draining.pop(name, None)
        remote = self._living().drop(name)
        if remote is not None:
            self._spawn(remote.aclose(drain_s=drain_s))

    def _say_who_comes(self) -> None:
        """While the pool may grow, what nobody carries well waits for it to."""
        pool = self._living()
        pool.choice.may_grow = self._size.may_grow
        pool.look_again()

    def _living(self) -> SamplerPoolHandle:
        assert self._pool is not None  # noqa: S101 - it has begun
        return self._pool

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _able(pool: SamplerPoolHandle) -> bool:
    return any(sampler.member.is_ready for sampler in pool.samplers.values())

"""A process's leases, kept up to date with the session's limits while samples are sent.

The decisions are those of :class:`tinker_ray.limits.HolderLimits`; this carries its messages, one
at a time and none per sample. Invariant: a process that has samples waiting and hears nothing for
too long says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tinker_ray.core.admission import Admission
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.limits import ByteBudget, HolderLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tinker_ray.limits import Ruling, SpendClaim, SpendGrant, Statement
    from tinker_ray.transport.clock import Clock

logger = logging.getLogger(__name__)

RECONNECT_S = 0.5
FAREWELL_S = 1.0
PATIENCE_S = 120.0
"""So long a process with samples in line goes without a word from the session; then it gives up."""


@dataclass(frozen=True, slots=True)
class HolderInfo:
    """Who holds permits, for people who look.

    Attributes:
        holder: Never used twice: a process that replaces another has a new one.
        kind: ``sampler`` or ``rollout``.
        actor: The name of the actor.
        node: The id of its Ray node.
    """

    holder: str
    kind: str
    actor: str = ""
    node: str = ""


class Ledger(Protocol):
    """The session's side, as holders see it."""

    async def state(self, statement: Statement) -> Ruling:
        """Answer what a holder states."""
        ...

    async def listen(self, info: HolderInfo) -> Ruling | None:
        """Return when there is news for a holder; None after some time without any."""
        ...

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim on the run's budget."""
        ...


class LeaseKeeper:
    """Talks to the session about one process's limits.

    Belongs to the event loop that it is started on.

    Args:
        info: Who holds the permits.
        ledger: The session's side.
        clock: Time; must be the clock of the samples' link.
        sample_bytes: Bytes of prompts that may be under way.
        on_lost: Called with an error when the session has been silent for too long.

    Attributes:
        limits: What this process may send.
        admission: Lets its samples through.
    """

    def __init__(
        self,
        info: HolderInfo,
        ledger: Ledger,
        clock: Clock,
        *,
        sample_bytes: int,
        on_lost: Callable[[ActorLostError], None] | None = None,
    ) -> None:
        self.info = info
        self.limits = HolderLimits(info.holder)
        self.admission = Admission(
            self.limits, clock, ByteBudget(sample_bytes), carry=self._state_if_due
        )
        self._ledger = ledger
        self._clock = clock
        self._on_lost = on_lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_at = clock.now()
        self._closed = False

    def __repr__(self) -> str:
        """Show the limits."""
        return f"LeaseKeeper({self.limits!r})"

    def start(self) -> None:
        """Begin to talk to the session."""
        self._spawn(self._listen())
        self._spawn(self._watch_silence())
        self.admission.changed()

    async def aclose(self) -> None:
        """Send nothing any more, tell the session, and stop; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.limits.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        statement = self.limits.poll(self._clock.now())
        if statement is not None:
            with contextlib.suppress(TinkerError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._ledger.state(statement)
        await self.admission.aclose()

    def _state_if_due(self, now: float) -> None:
        if self._closed:
            return
        statement = self.limits.poll(now)
        if statement is not None:
            self._spawn(self._state(statement))

    async def _state(self, statement: Statement) -> None:
        try:
            ruling = await self._ledger.state(statement)
        except TinkerError as error:
            logger.info("no answer to what %s stated: %s", self.info.holder, error)
            self.limits.reconnect()
            await self._clock.sleep(RECONNECT_S)
            self.admission.changed()
        else:
            self._hear(ruling)

    async def _listen(self) -> None:
        while True:
            try:
                ruling = await self._ledger.listen(self.info)
            except TinkerError as error:
                logger.info("%s hears nothing: %s", self.info.holder, error)
                await self._clock.sleep(RECONNECT_S)
            else:
                self._heard_at = self._clock.now()
                if ruling is not None:
                    self._hear(ruling)

    async def _watch_silence(self) -> None:
        while True:
            await self._clock.sleep(PATIENCE_S / 4)
            is_silent = self._clock.now() >= self._heard_at + PATIENCE_S
            if self.limits.waiting and (is_silent or self.limits.fenced):
                self._heard_at = self._clock.now()
                if self._on_lost is not None:
                    message = f"no word about permits from the session for {PATIENCE_S:g} s"
                    self._on_lost(ActorLostError(message, actor="session"))

    def _hear(self, ruling: Ruling) -> None:
        self._heard_at = self._clock.now()
        self.limits.apply(ruling, self._heard_at)
        self.admission.changed()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

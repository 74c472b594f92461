"""A process's leased permits, kept up to date with the session's ledger while samples are sent.

The decisions are those of :class:`tinker_ray.limits.Lease`; this carries its messages. Nothing is
dispatched under a lease that has run out, because every permit is taken from the lease itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tinker_ray.core.admission import Admission
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.limits import Backoff, ByteBudget, Lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from tinker_ray.limits import BackoffNotice, Claim, Grant, SpendClaim, SpendGrant
    from tinker_ray.transport.clock import Clock

logger = logging.getLogger(__name__)

RECONNECT_S = 0.5
FAREWELL_S = 1.0
PATIENCE_S = 120.0
"""How long a process that needs permits goes without a word from the ledger before it gives up."""


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


@dataclass(frozen=True, slots=True)
class Reply:
    """The ledger's answer to a claim, and the pause that holds for everybody."""

    grant: Grant
    pause: BackoffNotice


@dataclass(frozen=True, slots=True)
class News:
    """What a holder has to know without having asked.

    Attributes:
        version: Of the pause; to be sent back with the next question.
        pause: The pause that holds for everybody.
        grant: The newest grant that the holder did not ask for.
    """

    version: int
    pause: BackoffNotice
    grant: Grant | None = None


class Ledger(Protocol):
    """The session's side, as holders see it."""

    async def claim(self, claim: Claim) -> Reply:
        """Answer a claim."""
        ...

    async def listen(self, info: HolderInfo, version: int) -> News:
        """Return when there is news for a holder, or after some seconds without any."""
        ...

    async def report(self, pause: BackoffNotice) -> None:
        """Take in that the service pushed back."""
        ...

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim on the run's budget."""
        ...


class LeasedAdmission(Admission):
    """Admission whose permits come from a lease."""

    def __init__(self, clock: Clock, sample_bytes: int, keeper: LeaseKeeper) -> None:
        super().__init__(
            clock,
            Backoff(random.random),
            ByteBudget(sample_bytes),
            capacity=0,
            on_demand=keeper.wake,
            on_rejection=keeper.report_rejection,
        )
        self._keeper = keeper

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a permit of the lease."""
        while True:
            async with super().permit():
                if self._keeper.acquire():
                    try:
                        yield
                    finally:
                        self._keeper.release()
                    return

    @asynccontextmanager
    async def sending(self, num_bytes: int) -> AsyncIterator[None]:
        """Send, when that is allowed and the lease covers the permits that were taken from it."""
        async with super().sending(num_bytes):
            await self._keeper.covered()
            yield


class LeaseKeeper:
    """Renews the lease, asks for more, gives back, and passes the pauses on; until closed.

    Belongs to the event loop that it is started on.

    Args:
        info: Who holds the permits.
        ledger: The session's side.
        clock: Time; must be the clock of the samples' link.
        sample_bytes: Bytes of prompts that may be under way.
        on_lost: Called with an error when the ledger has been silent for too long.
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
        self.lease = Lease(info.holder)
        self.admission = LeasedAdmission(clock, sample_bytes, self)
        self._ledger = ledger
        self._clock = clock
        self._on_lost = on_lost
        self._reported_until = -math.inf
        self._waited_from: float | None = None
        self._uncovered: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show the lease."""
        return f"LeaseKeeper({self.lease!r})"

    def start(self) -> None:
        """Begin to talk to the ledger."""
        self._spawn(self._listen())
        self.wake()

    def wake(self) -> None:
        """Look at the lease again soon: something changed."""
        if self._due is None and not self._closed:
            self._due = asyncio.get_running_loop().call_soon(self._turn)

    def acquire(self) -> bool:
        """Take a permit if the lease has one now."""
        taken = self.lease.acquire(self._clock.now())
        if not taken:
            self._resize()
            self.wake()
        return taken

    def release(self) -> None:
        """Return a permit."""
        self.lease.release()
        self._resize()
        self.wake()

    async def covered(self) -> None:
        """Return when no more permits are in use than the lease has."""
        while self.lease.overdue(self._clock.now()):
            place = asyncio.get_running_loop().create_future()
            self._uncovered.append(place)
            self.wake()
            await place

    def report_rejection(self) -> None:
        """Tell the session of a pause that is longer than the last one told."""
        now = self._clock.now()
        notice = self.admission.backoff.notice(now)
        if now + notice.pause_s > self._reported_until:
            self._reported_until = now + notice.pause_s
            self._spawn(self._report(notice))

    async def aclose(self) -> None:
        """Take no more permits, tell the ledger, and stop; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.lease.close()
        for handle in (self._due, self._timer):
            if handle is not None:
                handle.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        claim = self.lease.poll(self._clock.now(), 0)
        if claim is not None:
            with contextlib.suppress(TinkerError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._ledger.claim(claim)
        await self.admission.aclose()

    def _turn(self) -> None:
        """Send the claim that is due, if one is, and plan the next look."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.now()
        claim = self.lease.poll(now, self.admission.waiting)
        if claim is not None:
            self._spawn(self._claim(claim))
        self._resize()
        self._watch_silence(now)
        wake_at = self.lease.wake_at()
        if not math.isinf(wake_at):
            delay_s = max(wake_at - now, 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._turn)

    def _watch_silence(self, now: float) -> None:
        if not self.admission.waiting and not self._uncovered:
            self._waited_from = None
        elif self._waited_from is None:
            self._waited_from = now
        elif now >= self._waited_from + PATIENCE_S:
            self._waited_from = now
            if self._on_lost is not None:
                message = f"no word from the session's permit ledger for {PATIENCE_S:g} s"
                self._on_lost(ActorLostError(message, actor="session"))

    async def _claim(self, claim: Claim) -> None:
        try:
            reply = await self._ledger.claim(claim)
        except TinkerError as error:
            logger.info("no answer to a claim of %s: %s", self.info.holder, error)
        else:
            self._hear(reply.pause, reply.grant)

    async def _listen(self) -> None:
        version = 0
        while True:
            try:
                news = await self._ledger.listen(self.info, version)
            except TinkerError as error:
                logger.info("%s hears nothing: %s", self.info.holder, error)
                await self._clock.sleep(RECONNECT_S)
            else:
                version = news.version
                self._hear(news.pause, news.grant)

    async def _report(self, notice: BackoffNotice) -> None:
        try:
            await self._ledger.report(notice)
        except TinkerError as error:
            logger.info("a pause of %s was not passed on: %s", self.info.holder, error)

    def _hear(self, pause: BackoffNotice, grant: Grant | None) -> None:
        now = self._clock.now()
        if self._waited_from is not None:
            self._waited_from = now
        if self.admission.backoff.merge(pause, now):
            self.admission.refresh()
        if grant is not None:
            self.lease.apply(grant, now)
        if not self.lease.overdue(now):
            for place in self._uncovered:
                if not place.done():
                    place.set_result(None)
            self._uncovered.clear()
        self._resize()
        self.wake()

    def _resize(self) -> None:
        self.admission.resize(self.lease.in_use + self.lease.available(self._clock.now()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""Samples on their way to the service: each is sent when the limits allow it.

The decisions are those of :class:`tinker_ray.limits.HolderLimits`; this lets samples wait for them,
in this process and on one event loop. Knows nothing of where permits come from: whoever owns an
:class:`Admission` carries the messages, if there are any. Invariant: a sample that is cancelled,
refused or failed leaves nothing taken.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from tinker_ray.core.byte_gate import ByteGate
from tinker_ray.errors import StaleHandleError
from tinker_ray.limits import LocalLimits, Paused, Stage
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from tinker_ray.core.traffic import Traffic
    from tinker_ray.limits import ByteBudget, HolderLimits, Ticket
    from tinker_ray.transport.clock import Clock


LAZY_S = 0.02
"""So long it may take until a permit that nobody here waits for is offered to others."""


def _closed() -> StaleHandleError:
    return StaleHandleError("sampling was closed while the request waited to be sent")


class Admission:
    """Lets samples through.

    Args:
        limits: What may be sent.
        clock: Time for it.
        budget: Bytes of prompts that may be under way.
        carry: Sends the messages that are due, with the time now; called after changes, once per
            turn of the loop. By default there is nobody to send them to: the limits are local.
    """

    def __init__(
        self,
        limits: HolderLimits,
        clock: Clock,
        budget: ByteBudget,
        *,
        carry: Callable[[float], None] | None = None,
    ) -> None:
        if carry is None:
            if not isinstance(limits, LocalLimits):
                raise TypeError(
                    "limits that are shared with other processes need somebody to carry"
                )
            carry = limits.settle
        self.limits = limits
        self.bytes = ByteGate(budget)
        self._clock = clock
        self._carry = carry
        self._is_shared = not isinstance(limits, LocalLimits)
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._uncovered: list[asyncio.Future[None]] = []
        self._due: asyncio.Handle | None = None
        self._sleeper: asyncio.Task[None] | None = None
        self._wakes_at = math.inf
        self._is_closed = False

    def __repr__(self) -> str:
        """Show the limits."""
        return f"Admission({self.limits!r}, {self.bytes!r})"

    @property
    def waiting(self) -> int:
        """How many samples wait to be sent."""
        return self.limits.waiting

    def sample(self, traffic: Traffic, num_bytes: int) -> Passage:
        """Return the way of a sample; to be used in an ``async with`` block until it is over.

        Args:
            traffic: Its kind.
            num_bytes: The estimated size of its prompt.

        Raises:
            StaleHandleError: This was closed.
        """
        self._check_open()
        return Passage(self, self.limits.join(traffic.label, traffic.weight, num_bytes))

    def changed(self) -> None:
        """Look at the limits again, at the end of this turn of the loop."""
        if self._due is None and not self._is_closed:
            self._due = asyncio.get_running_loop().call_soon(self._turn)

    def freed(self) -> None:
        """Look at the limits again because a sample gave something back.

        At once if others wait for it here; others elsewhere hear of it in a moment, so that there
        is not a look for each sample.
        """
        if self._waiting or self._uncovered:
            self.changed()
        elif self._is_shared:
            self._plan(self._clock.now() + LAZY_S)

    async def admitted(self, ticket: Ticket) -> None:
        """Return when a sample has a permit.

        Raises:
            StaleHandleError: This was closed.
        """
        self._check_open()
        if _waits(ticket):
            self._admit(self._clock.now())
        if not _waits(ticket):
            return
        self._waiting[ticket] = let_in = asyncio.get_running_loop().create_future()
        self.changed()
        try:
            with span(names.PERMIT_WAIT):
                await let_in
        finally:
            self._waiting.pop(ticket, None)

    async def covered(self) -> None:
        """Return when a sample that has a permit may be sent at this moment.

        Raises:
            StaleHandleError: This was closed.
        """
        while not self.limits.covers(self._clock.now()):
            self._check_open()
            place = asyncio.get_running_loop().create_future()
            self._uncovered.append(place)
            self.changed()
            with span(names.BACKOFF):
                await place

    async def take_bytes(self, num_bytes: int) -> int:
        """Take a prompt's share of the byte budget, and return what was taken."""
        cost_bytes = self.limits.backoff.budget_bytes(self._clock.now(), num_bytes)
        await self.bytes.acquire(cost_bytes)
        return cost_bytes

    def now(self) -> float:
        """Return the time that the limits go by."""
        return self._clock.now()

    async def aclose(self) -> None:
        """Send away everybody who waits, and stop the timer; idempotent."""
        self._is_closed = True
        for place in [*self._waiting.values(), *self._uncovered]:
            if not place.done():
                place.set_exception(_closed())
        self._uncovered.clear()
        if self._due is not None:
            self._due.cancel()
        if self._sleeper is not None:
            self._sleeper.cancel()
            await asyncio.gather(self._sleeper, return_exceptions=True)

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    def _turn(self) -> None:
        self._due = None
        now = self._clock.now()
        self._admit(now)
        if self._is_idle:
            return
        self._carry(now)
        self._admit(now)
        if self._uncovered and self.limits.covers(now):
            uncovered, self._uncovered = self._uncovered, []
            for place in uncovered:
                if not place.done():
                    place.set_result(None)
        self._plan(self._next_look(now))

    def _admit(self, now: float) -> None:
        while (ticket := self.limits.admit(now)) is not None:
            place = self._waiting.pop(ticket, None)
            if place is not None and not place.done():
                place.set_result(None)

    @property
    def _is_idle(self) -> bool:
        """Whether nobody waits, here or elsewhere, for what the limits say."""
        return not (self._is_shared or self._waiting or self._uncovered)

    def _next_look(self, now: float) -> float:
        wake_at = self.limits.wake_at(now)
        state = self.limits.state(now)
        return (
            min(wake_at, state.until) if self._uncovered and isinstance(state, Paused) else wake_at
        )

    def _plan(self, wake_at: float) -> None:
        """See to it that there is a turn by then; an earlier one plans the next."""
        if wake_at >= self._wakes_at or self._is_closed:
            return
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._wakes_at = wake_at
        self._sleeper = asyncio.get_running_loop().create_task(self._sleep(wake_at))

    async def _sleep(self, wake_at: float) -> None:
        await self._clock.sleep(max(wake_at - self._clock.now(), 0.0))
        self._sleeper, self._wakes_at = None, math.inf
        self._turn_now()

    def _turn_now(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._turn()


def _waits(ticket: Ticket) -> bool:
    return ticket.stage is Stage.WAITING


class Passage:
    """The way of one sample, from the line to its answer."""

    def __init__(self, admission: Admission, ticket: Ticket) -> None:
        self._admission = admission
        self._limits = admission.limits
        self._ticket = ticket

    async def __aenter__(self) -> Self:
        """Begin to wait."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back whatever the sample has."""
        self._limits.finished(self._ticket)
        self._admission.freed()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send, as soon as there is a permit and the byte budget admits it.

        Raises:
            StaleHandleError: The admission was closed.
        """
        cost_bytes = await self._ready()
        try:
            yield
        finally:
            self._admission.bytes.release(cost_bytes)

    async def covered(self) -> None:
        """Return when the sample may be sent once more.

        Raises:
            StaleHandleError: The admission was closed.
        """
        await self._admission.covered()

    def accepted(self) -> None:
        """Note that the service has taken the sample."""
        self._limits.accepted(self._ticket, self._admission.now())
        self._admission.freed()

    def rejected(self, retry_after_s: float | None) -> None:
        """Note a 429: everybody pauses, and the sample is in line again."""
        self._limits.rejected(self._ticket, self._admission.now(), retry_after_s)
        self._admission.changed()

    def suspended(self, seconds: float) -> None:
        """Note that the service takes nothing for another reason; the sample is in line again."""
        now = self._admission.now()
        self._limits.withdrawn(self._ticket)
        self._limits.suspend(now, seconds)
        self._admission.changed()

    async def _ready(self) -> int:
        """Wait for a permit and for bytes; a pause that begins meanwhile begins it all anew."""
        while True:
            await self._admission.admitted(self._ticket)
            cost_bytes = await self._admission.take_bytes(self._ticket.est_bytes)
            if self._limits.covers(self._admission.now()):
                return cost_bytes
            self._admission.bytes.release(cost_bytes)
            self._limits.withdrawn(self._ticket)
            self._admission.changed()

"""Who may send a sampling request now: the machines of :mod:`tinker_ray.limits`, awaited.

A permit covers a request from its first attempt to its acceptance by the service, the waits for the
service's back-pressure included. While the service pushes back nobody sends, afterwards few at a
time. Everyone who waits is served first come, first served.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tinker_ray.core.line import Line
from tinker_ray.errors import StaleHandleError
from tinker_ray.limits.backoff import Paused, Throttled
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tinker_ray.limits.backoff import Backoff
    from tinker_ray.limits.budget import ByteBudget
    from tinker_ray.transport.clock import Clock

DISPATCH_PERMITS = 400
"""Sampling requests that may be under way to the service at once."""


def _closed() -> StaleHandleError:
    return StaleHandleError("sampling was closed while the request waited to be sent")


class Admission:
    """Permits for sampling requests: ``capacity`` of them, which the owner may change at any time.

    Args:
        clock: Time for the backoff.
        backoff: What the service's rejections demand.
        budget: Bytes of prompts that may be under way.
        capacity: Permits to start with; a holder of leased permits starts with none.
        on_demand: Called whenever somebody begins to wait for a permit.
        on_rejection: Called after each rejection, to tell others of it.
    """

    def __init__(  # noqa: PLR0913 - the machines and their two listeners
        self,
        clock: Clock,
        backoff: Backoff,
        budget: ByteBudget,
        *,
        capacity: int = DISPATCH_PERMITS,
        on_demand: Callable[[], None] | None = None,
        on_rejection: Callable[[], None] | None = None,
    ) -> None:
        self.capacity = capacity
        self.backoff = backoff
        self.in_use = 0
        self.rejections = 0
        self._clock = clock
        self._budget = budget
        self._on_demand = on_demand
        self._on_rejection = on_rejection
        self._permits = Line()
        self._senders = Line()
        self._sending = 0
        self._reopening: asyncio.Task[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        """Show what is in use and who waits."""
        return (
            f"Admission(in_use={self.in_use}/{self.capacity}, sending={self._sending}, "
            f"waiting={self.waiting}, {self.backoff!r})"
        )

    @property
    def waiting(self) -> int:
        """How many wait for a permit."""
        return len(self._permits)

    def resize(self, capacity: int) -> None:
        """Change the number of permits; those in use above it are not taken away."""
        self.capacity = capacity
        self._grant()

    def refresh(self) -> None:
        """Look at the backoff again, after it was changed from outside."""
        self._open()

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a permit.

        Raises:
            StaleHandleError: The admission was closed.
        """
        self._check_open()
        if self.in_use < self.capacity and not self._permits:
            self.in_use += 1
        else:
            place = self._permits.join()
            if self._on_demand is not None:
                self._on_demand()
            with span(names.PERMIT_WAIT):
                await self._permits.wait(place, self._return_permit)
        try:
            yield
        finally:
            self._return_permit()

    @asynccontextmanager
    async def sending(self, num_bytes: int) -> AsyncIterator[None]:
        """Send, when the backoff and the byte budget allow it; held only while an attempt runs.

        Raises:
            StaleHandleError: The admission was closed.
        """
        self._check_open()
        if self._may_send() and not self._senders:
            cost_bytes = self._start_sending(num_bytes)
        else:
            place = self._senders.join(num_bytes)
            self._plan_reopening()
            with span(names.BACKOFF):
                cost_bytes = await self._senders.wait(place, self._sender_left)
        try:
            yield
        finally:
            self._sender_left(cost_bytes)

    def rejected(self, num_bytes: int, retry_after_s: float | None) -> None:
        """Note that the service answered 429."""
        self.rejections += 1
        self.backoff.on_rejected(self._clock.now(), num_bytes, retry_after_s)
        if self._on_rejection is not None:
            self._on_rejection()

    def accepted(self) -> None:
        """Note that the service took a request."""
        self.backoff.on_accepted(self._clock.now())

    async def aclose(self) -> None:
        """Send away everybody who waits, and stop the timer; idempotent."""
        self._is_closed = True
        self._permits.dissolve(_closed)
        self._senders.dissolve(_closed)
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    def _return_permit(self, _: int = 0) -> None:
        self.in_use -= 1
        self._grant()

    def _grant(self) -> None:
        while self.in_use < self.capacity and (place := self._permits.first()) is not None:
            self.in_use += 1
            place.let_in.set_result(0)

    def _start_sending(self, num_bytes: int) -> int:
        cost_bytes = self.backoff.budget_bytes(self._clock.now(), num_bytes)
        self._budget.take(cost_bytes)
        self._sending += 1
        return cost_bytes

    def _sender_left(self, cost_bytes: int) -> None:
        self._budget.release(cost_bytes)
        self._sending -= 1
        self._open()

    def _may_send(self) -> bool:
        state = self.backoff.state(self._clock.now())
        if isinstance(state, Paused) or not self._budget.admits():
            return False
        return not isinstance(state, Throttled) or self._sending < state.width

    def _open(self) -> None:
        while self._may_send() and (place := self._senders.first()) is not None:
            place.let_in.set_result(self._start_sending(place.num_bytes))
        self._plan_reopening()

    def _plan_reopening(self) -> None:
        state = self.backoff.state(self._clock.now())
        planned = self._reopening is not None and not self._reopening.done()
        if self._senders and isinstance(state, Paused) and not planned:
            self._reopening = asyncio.get_running_loop().create_task(self._reopen(state.until))

    async def _reopen(self, until: float) -> None:
        await self._clock.sleep(max(until - self._clock.now(), 0.0))
        self._reopening = None
        self._open()

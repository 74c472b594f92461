"""Keeping to a run's budget while samples are sent.

The decisions are those of :class:`tinker_ray.limits.SpendShare`; this makes samples wait for them
and carries its claims. Knows nothing of where the budget is divided. Invariant: what was set aside
for a sample is freed when it ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tinker_ray.core.session_calls import base_model_of
from tinker_ray.errors import BudgetExceededError, ConfigurationError, StaleHandleError, TinkerError
from tinker_ray.limits import SpendLedger, SpendShare, Standing, limit_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tinker_ray.budget import Budget
    from tinker_ray.core.link import Link
    from tinker_ray.limits import Reservation, SpendClaim, SpendGrant
    from tinker_ray.transport.clock import Clock
    from tinker_ray.types import SampleResponse
    from tinker_ray.wire.request import SampleRequest

logger = logging.getLogger(__name__)

FAREWELL_S = 1.0
NO_BUDGET = "this session has no budget to raise: open it with ServiceClient(budget=Budget(…))"


class SpendPort(Protocol):
    """Where the run's budget is divided."""

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim."""
        ...


class LocalSpend:
    """The budget of a run of one process."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.ledger = SpendLedger(limit_of(budget))

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim."""
        return self.ledger.claim(claim)

    def open(self, link: Link) -> Spending:
        """Return what makes samples over a link keep to it."""
        share = SpendShare("local", self._budget)
        return Spending(share, self, link.clock, partial(base_model_of, link))


class Spending:
    """Makes samples of this process wait for the budget.

    Args:
        share: This process's part.
        port: Where more comes from.
        clock: Time.
        base_model: Tells the base model of a sampling session; asked once for each, and only if
            there are prices.
    """

    def __init__(
        self,
        share: SpendShare,
        port: SpendPort,
        clock: Clock,
        base_model: Callable[[str], Awaitable[str]],
    ) -> None:
        self._share = share
        self._port = port
        self._clock = clock
        self._base_model = base_model
        self._models: dict[str, str] = {}
        self._waiting: dict[Reservation, asyncio.Future[None]] = {}
        self._woken = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None
        self._has_warned = False
        self._is_closed = False

    def __repr__(self) -> str:
        """Show the share."""
        return f"Spending({self._share!r})"

    @asynccontextmanager
    async def sample(
        self, request: SampleRequest
    ) -> AsyncIterator[Callable[[SampleResponse], None]]:
        """Hold what a sample may cost; call what this gives with the response.

        Raises:
            BudgetExceededError: It does not fit into what is left, and is not to wait.
            ConfigurationError: It has no ``max_tokens``, or its model no price.
            StaleHandleError: This was closed while the sample waited.
        """
        if self._is_closed:
            raise _closed()
        reservation = await self._join(request)

        def settle(response: SampleResponse) -> None:
            num_drawn = sum(len(sequence.tokens_np) for sequence in response.sequences)
            self._share.settle(reservation, request.prompt.length, num_drawn)

        try:
            await self._admitted(reservation)
            yield settle
        finally:
            self._share.cancel(reservation)
            self._advance()

    async def aclose(self) -> None:
        """Send away what waits and give the rest back; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_closed())
        if self._talking is not None:
            self._talking.cancel()
            await asyncio.gather(self._talking, return_exceptions=True)
            with contextlib.suppress(TinkerError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._port.claim_spend(self._share.leave())

    async def _join(self, request: SampleRequest) -> Reservation:
        max_tokens = request.sampling_params.max_tokens
        if max_tokens is None:
            message = "under a budget every sample needs max_tokens in its sampling_params"
            raise ConfigurationError(message)
        model = await self._model(request.sampling_session_id or "")
        drawn = request.num_samples * max_tokens
        return self._share.join(model, request.prompt.length, drawn, self._clock.now())

    async def _model(self, session_id: str) -> str:
        if not self._share.budget.prices:
            return ""
        if session_id not in self._models:
            self._models[session_id] = await self._base_model(session_id)
        return self._models[session_id]

    async def _admitted(self, reservation: Reservation) -> None:
        self._advance()
        if reservation.standing is Standing.WAITING:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[reservation] = waiting
            try:
                await waiting
            finally:
                del self._waiting[reservation]
        if reservation.standing is Standing.REFUSED:
            raise BudgetExceededError(self._refusal(reservation))

    def _advance(self) -> None:
        for reservation in self._share.advance():
            waiting = self._waiting.get(reservation)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        if self._talking is None and not self._is_closed:
            self._talking = asyncio.get_running_loop().create_task(self._talk())
        self._woken.set()

    async def _talk(self) -> None:
        """Send claims when they are due, for ever."""
        while True:
            self._woken.clear()
            claim = self._share.poll(self._clock.now())
            if claim is None:
                await self._until(self._share.wake_at)
                continue
            try:
                grant = await self._port.claim_spend(claim)
            except TinkerError as error:
                logger.info("no answer to a claim on the budget: %s", error)
                self._share.reconnect(self._clock.now())
            else:
                self._share.apply(grant, self._clock.now())
                self._advance()
                self._warn_if_waiting(grant)

    async def _until(self, wake_at: float) -> None:
        if math.isinf(wake_at):
            await self._woken.wait()
            return
        delay = asyncio.ensure_future(self._clock.sleep(max(wake_at - self._clock.now(), 0.0)))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({delay, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            delay.cancel()
            woken.cancel()

    def _warn_if_waiting(self, grant: SpendGrant) -> None:
        waits = self._share.budget.when_used_up == "wait"
        is_paused = waits and grant.is_final and self._share.waiting > 0
        if is_paused and not self._has_warned:
            logger.warning("samples wait until the budget is raised: %s", self._state())
        self._has_warned = is_paused

    def _refusal(self, reservation: Reservation) -> str:
        amount = reservation.amount
        cost = f" (cost {amount.cost:.4g})" if self._share.budget.max_cost is not None else ""
        return (
            f"a sample may take {amount.tokens:g} tokens{cost}, and {self._state()}; raise the "
            "budget or ask for fewer tokens"
        )

    def _state(self) -> str:
        spent, limit = self._share.known_spent, self._share.known_limit
        parts = []
        if not math.isinf(limit.tokens):
            parts.append(f"{spent.tokens:g} of {limit.tokens:g} tokens")
        if not math.isinf(limit.cost):
            parts.append(f"{spent.cost:.4g} of {limit.cost:.4g} in money")
        return f"the run has spent {' and '.join(parts)}"


def _closed() -> StaleHandleError:
    return StaleHandleError("sampling was closed while the sample waited for the budget")

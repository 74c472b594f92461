"""Repeating a request: one pure schedule, one loop that follows it.

The rule of the service's own SDK, in two layers. A *round* is an attempt and up to
``endpoint.retries`` quick repetitions, ``min(0.5 · 2ⁿ, 10)`` s apart, less up to a quarter at
random, or what ``Retry-After`` asks for. When a round has failed for a reason that may pass, new
rounds follow after ``min(2ᵏ, 30)`` s until ``endpoint.budget_s`` has gone by since the first
attempt; the last one starts right at its end. All attempts of a round carry the same idempotency
key.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.errors import APIConnectionError, APIStatusError, BillingError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.trace import SpanKind, recording, span
from tinker_ray.transport.auth import CredentialUnavailableError
from tinker_ray.transport.billing import ASK_AGAIN_S, BillingPause
from tinker_ray.wire import status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tinker_ray.errors import APIError, TinkerError
    from tinker_ray.transport.clock import Clock
    from tinker_ray.transport.message import Request, Response, Transport
    from tinker_ray.wire.endpoint import Endpoint

logger = logging.getLogger(__name__)

_QUICK_BASE_S, _QUICK_MAX_S, _QUICK_JITTER = 0.5, 10.0, 0.25
_ROUND_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after ``seconds``, in a new round or in the present one."""

    seconds: float
    new_round: bool


@dataclass(frozen=True, slots=True)
class RoundFailure:
    """A round of attempts that failed.

    Attributes:
        endpoint: What was called.
        error: How it ended.
        round: Its number, from 0.
        elapsed_s: Seconds since the first attempt.
        repeated: Whether another round follows.
    """

    endpoint: Endpoint
    error: APIError
    round: int
    elapsed_s: float
    repeated: bool


def _ignore(_: RoundFailure) -> None:
    """Do nothing."""


@dataclass
class Patience:
    """What all calls of a process to one service share.

    Attributes:
        max_retries: Quick repetitions, instead of those of the endpoints that have any.
        billing: The pause while the account cannot pay.
        on_round_failed: Hears of each failed round.
    """

    max_retries: int | None = None
    billing: BillingPause = field(default_factory=BillingPause)
    on_round_failed: Callable[[RoundFailure], None] = _ignore

    def waits_for_billing(self, error: TinkerError, now: float) -> bool:
        """Tell whether an error is a 402 that is waited out; the user is told from time to time."""
        if not isinstance(error, BillingError) or not self.billing.begins_or_goes_on(now):
            return False
        if self.billing.is_to_be_told(now):
            logger.warning("paused until the account can pay: %s", error)
        return True


class RetrySchedule:
    """When to repeat one call. Pure: time and chance are passed in."""

    def __init__(
        self,
        endpoint: Endpoint,
        now: float,
        chance: Callable[[], float],
        *,
        max_retries: int | None = None,
    ) -> None:
        self._retries = endpoint.retries
        if max_retries is not None and endpoint.retries > 0:
            self._retries = max_retries
        self._started = now
        self._deadline = now + endpoint.budget_s
        self._chance = chance
        self._attempt = 0
        self._round = 0

    @property
    def attempt(self) -> int:
        """The number of the present attempt within its round, from 0."""
        return self._attempt

    @property
    def round(self) -> int:
        """The number of the present round, from 0; a wait for a new one counts as the new one."""
        return self._round

    def elapsed_s(self, now: float) -> float:
        """Seconds since the first attempt."""
        return now - self._started

    def next_wait(
        self, *, retryable: bool, retry_after_s: float | None, now: float, quick: bool = True
    ) -> Wait | None:
        """Decide what follows a failed attempt; None means that its error stands.

        Args:
            retryable: Another attempt may succeed.
            retry_after_s: What the service asked for.
            now: The time.
            quick: Another attempt may follow in the same round.
        """
        if not retryable:
            return None
        if quick and self._attempt < self._retries:
            delay_s = min(_QUICK_BASE_S * 2.0**self._attempt, _QUICK_MAX_S)
            self._attempt += 1
            return Wait(
                retry_after_s or delay_s * (1 - _QUICK_JITTER * self._chance()), new_round=False
            )
        if now >= self._deadline:
            return None
        seconds = min(2.0**self._round, _ROUND_MAX_S, self._deadline - now)
        self._round += 1
        self._attempt = 0
        return Wait(seconds, new_round=True)

    def after_billing_pause(self) -> Wait:
        """Begin a round that counts for nothing but the budget's time."""
        self._attempt = 0
        return Wait(ASK_AGAIN_S, new_round=True)


async def send(
    transport: Transport,
    request: Request,
    clock: Clock,
    patience: Patience | None = None,
    before_again: Callable[[], Awaitable[None]] | None = None,
) -> Response:
    """Send a request until it succeeds or its schedule gives up.

    Args:
        transport: Carries it.
        request: To be sent.
        clock: Time between repetitions.
        patience: How long to go on.
        before_again: Awaited before each repetition, after its pause.

    Raises:
        APIStatusError: The last answer was not 2xx.
        APIConnectionError: There was no answer.
    """
    patience = patience or Patience()
    attributes = {
        names.HTTP_REQUEST_METHOD: request.endpoint.method,
        names.HTTP_ROUTE: request.endpoint.path,
    }
    with span(names.HTTP_REQUEST, kind=SpanKind.CLIENT, attributes=attributes) as current:
        schedule = RetrySchedule(
            request.endpoint, clock.now(), random.random, max_retries=patience.max_retries
        )
        key = _idempotency_key(request)
        while True:
            headers = {**key, "x-stainless-retry-count": str(schedule.attempt)}
            if recording():
                headers |= inject()
            outcome = await _attempt(transport, request, headers)
            if not isinstance(outcome, _Failure):
                current.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, outcome.status)
                return outcome
            wait = _wait(outcome, schedule, patience, request.endpoint, clock.now())
            if wait is None:
                raise outcome.error
            if wait.new_round:
                key = _idempotency_key(request)
            await clock.sleep(wait.seconds)
            if before_again is not None:
                await before_again()


def _wait(
    failure: _Failure, schedule: RetrySchedule, patience: Patience, endpoint: Endpoint, now: float
) -> Wait | None:
    """Decide what follows a failed attempt; a 402 of back-pressured calls is their callers'."""
    error, in_rounds = failure.error, endpoint.budget_s > 0
    if in_rounds and not endpoint.backpressure and patience.waits_for_billing(error, now):
        return schedule.after_billing_pause()
    after = error.retry_after_s if isinstance(error, APIStatusError) else None
    number = schedule.round
    wait = schedule.next_wait(
        retryable=failure.retryable, retry_after_s=after, now=now, quick=failure.quick
    )
    if in_rounds and not failure.handed_on and (wait is None or wait.new_round):
        elapsed_s = schedule.elapsed_s(now)
        patience.on_round_failed(
            RoundFailure(endpoint, error, number, elapsed_s, repeated=wait is not None)
        )
    return wait


@dataclass(frozen=True, slots=True)
class _Failure:
    """How an attempt failed; ``handed_on`` back-pressure is no failure but its caller's to wait."""

    error: APIError
    retryable: bool
    quick: bool = True
    handed_on: bool = False


async def _attempt(
    transport: Transport, request: Request, headers: dict[str, str]
) -> Response | _Failure:
    try:
        response = await transport.attempt(request, headers)
    except CredentialUnavailableError as error:
        return _Failure(error, retryable=True, quick=False)
    except APIConnectionError as error:
        return _Failure(error, retryable=True)
    except APIStatusError as error:  # of the exchange of a credential
        return _Failure(error, status.is_retryable(error.status_code), quick=False)
    if status.is_success(response.status, redirects=request.endpoint.redirect_is_answer):
        return response
    verdict = status.judge(response.status, response.headers, response.content, now=time.time())
    handed_on = request.endpoint.backpressure and response.status == status.TOO_MANY_REQUESTS
    return _Failure(verdict.error, verdict.retryable and not handed_on, handed_on=handed_on)


def _idempotency_key(request: Request) -> dict[str, str]:
    if request.endpoint.method == "GET":
        return {}
    return {"X-Idempotency-Key": f"stainless-python-retry-{uuid.uuid4()}"}

"""Repeating a request: one pure schedule, one loop that follows it.

The rule of the service's own SDK, in two layers. A *round* is an attempt and up to
``endpoint.retries`` quick repetitions, ``min(0.5 · 2ⁿ, 10)`` s apart, less up to a quarter at
random, or what ``Retry-After`` asks for. When a round has failed for a reason that may pass, new
rounds follow after ``min(2ᵏ, 30)`` s until ``endpoint.budget_s`` has gone by since the first
attempt; the last one starts right at its end. All attempts of a round carry the same idempotency
key.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.errors import APIConnectionError, APIStatusError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.trace import SpanKind, recording, span
from tinker_ray.wire import status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.errors import APIError
    from tinker_ray.transport.clock import Clock
    from tinker_ray.transport.message import Request, Response, Transport
    from tinker_ray.wire.endpoint import Endpoint

_QUICK_BASE_S, _QUICK_MAX_S, _QUICK_JITTER = 0.5, 10.0, 0.25
_ROUND_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after ``seconds``, in a new round or in the present one."""

    seconds: float
    new_round: bool


class RetrySchedule:
    """When to repeat one call. Pure: time and chance are passed in."""

    def __init__(self, endpoint: Endpoint, now: float, chance: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._deadline = now + endpoint.budget_s
        self._chance = chance
        self._attempt = 0
        self._round = 0

    @property
    def attempt(self) -> int:
        """The number of the present attempt within its round, from 0."""
        return self._attempt

    def next_wait(self, *, retryable: bool, retry_after_s: float | None, now: float) -> Wait | None:
        """Decide what follows a failed attempt; None means that its error stands."""
        if not retryable:
            return None
        if self._attempt < self._endpoint.retries:
            quick = min(_QUICK_BASE_S * 2.0**self._attempt, _QUICK_MAX_S)
            self._attempt += 1
            return Wait(
                retry_after_s or quick * (1 - _QUICK_JITTER * self._chance()), new_round=False
            )
        if now >= self._deadline:
            return None
        seconds = min(2.0**self._round, _ROUND_MAX_S, self._deadline - now)
        self._round += 1
        self._attempt = 0
        return Wait(seconds, new_round=True)


async def send(transport: Transport, request: Request, clock: Clock) -> Response:
    """Send a request until it succeeds or its schedule gives up.

    Raises:
        APIStatusError: The last answer was not 2xx.
        APIConnectionError: There was no answer.
    """
    attributes = {
        names.HTTP_REQUEST_METHOD: request.endpoint.method,
        names.HTTP_ROUTE: request.endpoint.path,
    }
    with span(names.HTTP_REQUEST, kind=SpanKind.CLIENT, attributes=attributes) as current:
        schedule = RetrySchedule(request.endpoint, clock.now(), random.random)
        key = _idempotency_key(request)
        while True:
            headers = {**key, "x-stainless-retry-count": str(schedule.attempt)}
            if recording():
                headers |= inject()
            outcome = await _attempt(transport, request, headers)
            if not isinstance(outcome, _Failure):
                current.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, outcome.status)
                return outcome
            error = outcome.error
            after = error.retry_after_s if isinstance(error, APIStatusError) else None
            wait = schedule.next_wait(
                retryable=outcome.retryable, retry_after_s=after, now=clock.now()
            )
            if wait is None:
                raise error
            if wait.new_round:
                key = _idempotency_key(request)
            await clock.sleep(wait.seconds)


@dataclass(frozen=True, slots=True)
class _Failure:
    error: APIError
    retryable: bool


async def _attempt(
    transport: Transport, request: Request, headers: dict[str, str]
) -> Response | _Failure:
    try:
        response = await transport.attempt(request, headers)
    except APIConnectionError as error:
        return _Failure(error, retryable=True)
    if status.is_success(response.status):
        return response
    verdict = status.judge(response.status, response.headers, response.content, now=time.time())
    handed_on = request.endpoint.backpressure and response.status == status.TOO_MANY_REQUESTS
    return _Failure(verdict.error, verdict.retryable and not handed_on)


def _idempotency_key(request: Request) -> dict[str, str]:
    if request.endpoint.method == "GET":
        return {}
    return {"X-Idempotency-Key": f"stainless-python-retry-{uuid.uuid4()}"}

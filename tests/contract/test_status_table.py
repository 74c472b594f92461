"""What each answer of the service leads to at each kind of call, in virtual time.

One table: a row for each answer, a column for each kind of call. The calls go through all of our
layers down to HTTP, where a service answers the same thing again and again, and in the end gives
in. ``DIRECT`` calls have quick repetitions only, ``RETRIED`` ones are repeated in rounds, too;
``POLL`` asks for one promise and ``FUTURES`` for all of a sampler; ``ASAMPLE`` submits a sample
that is not repeated as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from tests.fakes.credentials import FixedIdentity
from tinker_ray import errors
from tinker_ray.config import Secret
from tinker_ray.core.admission import Admission
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.futures_poller import FuturesPoller
from tinker_ray.core.link import Link, Promise
from tinker_ray.core.operation import LOAD_RESULT
from tinker_ray.core.polling import retrieve
from tinker_ray.core.sampling import SamplingCore
from tinker_ray.limits import ByteBudget, LocalLimits
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.http import HttpTransport
from tinker_ray.types import ModelInput, RetryConfig
from tinker_ray.wire import endpoint
from tinker_ray.wire.endpoint import Endpoint
from tinker_ray.wire.request import SampleRequest

PATIENCE = 400
"""Answers after which the service gives in: whoever is still asking then would ask for ever."""
BILLING_PAUSE_S = 60.0
V1 = "/api/v1/"

# --- what may happen ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raises:
    """The call fails, after some attempts or some time."""

    error: type[errors.TinkerError]
    attempts: int | None = 1
    seconds: tuple[float, float] = (0.0, 0.0)
    value_error: bool = False


@dataclass(frozen=True)
class ForEver:
    """The call is repeated for as long as it takes, with pauses of at most so many seconds."""

    longest_pause_s: float


Outcome = Raises | ForEver

QUICK = (49.125, 65.5)
"""Ten quick repetitions: 0.5 · 2ⁿ s, 10 s at most, less up to a quarter."""
ROUNDS = (300.0, 300.0 + QUICK[1])
"""Rounds of quick repetitions, none of which begins later than 300 s after the first attempt."""
BUDGET = (300.0, 300.0)
"""Rounds without quick repetitions end exactly then."""


def quickly(error: type[errors.TinkerError]) -> Raises:
    return Raises(error, 11, QUICK)


def in_rounds(error: type[errors.TinkerError]) -> Raises:
    return Raises(error, None, ROUNDS)


def for_five_minutes(error: type[errors.TinkerError]) -> Raises:
    return Raises(error, 15, BUDGET)


def refused(error: type[errors.TinkerError], attempts: int = 1) -> Raises:
    return Raises(error, attempts, value_error=True)


def ends_polling(attempts: int = 1, seconds: float = 0.0) -> Raises:
    return Raises(errors.TinkerError, attempts, (seconds, seconds))


UNPAID = (BILLING_PAUSE_S, BILLING_PAUSE_S + 5.0)
REPLACED = {"WWW-Authenticate": 'Bearer error="invalid_token"'}

# --- the table ------------------------------------------------------------------------------------

TABLE: dict[str, tuple[httpx.Response | Exception, dict[str, Outcome]]] = {
    "304": (
        httpx.Response(304, json={}),
        {
            "DIRECT": Raises(errors.APIStatusError),
            "RETRIED": Raises(errors.APIStatusError),
            "POLL": refused(errors.APIStatusError),
            "ASAMPLE": Raises(errors.APIStatusError),
            "FUTURES": ends_polling(),
        },
    ),
    "400": (
        httpx.Response(400, json={"detail": "bad"}),
        {
            "DIRECT": Raises(errors.BadRequestError),
            "RETRIED": Raises(errors.BadRequestError),
            "POLL": refused(errors.BadRequestError, attempts=4),
            "ASAMPLE": Raises(errors.BadRequestError),
            "FUTURES": ends_polling(attempts=4, seconds=3.0),
        },
    ),
    "400 without content": (
        httpx.Response(400, headers={"Content-Length": "0"}),
        {
            "DIRECT": quickly(errors.APIConnectionError),
            # Sixteen of them are taken for lost connections; the seventeenth is believed.
            "RETRIED": Raises(errors.BadRequestError, 17, (52.0, 83.0)),
            "POLL": Raises(errors.BadRequestError, 20, (361.0, 361.0), value_error=True),
            "ASAMPLE": for_five_minutes(errors.APIConnectionError),
            "FUTURES": ends_polling(attempts=20, seconds=19.0),
        },
    ),
    "401": (
        httpx.Response(401, json={}),
        {
            "DIRECT": Raises(errors.AuthenticationError),
            "RETRIED": Raises(errors.AuthenticationError),
            "POLL": refused(errors.AuthenticationError),
            "ASAMPLE": Raises(errors.AuthenticationError),
            "FUTURES": ends_polling(),
        },
    ),
    "401 invalid_token": (  # the token is replaced, once
        httpx.Response(401, headers=REPLACED, json={}),
        {
            "DIRECT": Raises(errors.AuthenticationError, 2),
            "RETRIED": Raises(errors.AuthenticationError, 2),
            "POLL": refused(errors.AuthenticationError, attempts=2),
            "ASAMPLE": Raises(errors.AuthenticationError, 2),
            "FUTURES": ends_polling(attempts=2),
        },
    ),
    "402": (
        httpx.Response(402, json={}),
        {
            "DIRECT": Raises(errors.BillingError),
            "RETRIED": Raises(errors.BillingError, None, UNPAID),
            "POLL": Raises(errors.BillingError, None, UNPAID, value_error=True),
            "ASAMPLE": Raises(errors.BillingError, None, UNPAID),
            "FUTURES": Raises(errors.TinkerError, None, UNPAID),
        },
    ),
    "403": (
        httpx.Response(403, json={}),
        {
            "DIRECT": Raises(errors.PermissionDeniedError),
            "RETRIED": Raises(errors.PermissionDeniedError),
            "POLL": refused(errors.PermissionDeniedError),
            "ASAMPLE": Raises(errors.PermissionDeniedError),
            "FUTURES": ends_polling(),
        },
    ),
    "404": (
        httpx.Response(404, json={}),
        {
            "DIRECT": Raises(errors.NotFoundError),
            "RETRIED": Raises(errors.NotFoundError),
            "POLL": refused(errors.NotFoundError),
            "ASAMPLE": Raises(errors.NotFoundError),
            "FUTURES": ends_polling(),
        },
    ),
    "408": (
        httpx.Response(408, json={"type": "try_again", "queue_state": "active"}),
        {
            "DIRECT": quickly(errors.APIStatusError),
            "RETRIED": in_rounds(errors.APIStatusError),
            "POLL": ForEver(0.0),
            "ASAMPLE": for_five_minutes(errors.APIStatusError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "409": (
        httpx.Response(409, json={}),
        {
            "DIRECT": quickly(errors.ConflictError),
            "RETRIED": in_rounds(errors.ConflictError),
            "POLL": refused(errors.ConflictError),
            "ASAMPLE": for_five_minutes(errors.ConflictError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "410": (
        httpx.Response(410, json={}),
        {
            "DIRECT": Raises(errors.APIStatusError),
            "RETRIED": Raises(errors.APIStatusError),
            "POLL": Raises(errors.RetryableError),
            "ASAMPLE": Raises(errors.APIStatusError),
            "FUTURES": ends_polling(),
        },
    ),
    "413": (
        httpx.Response(413, json={}),
        {
            "DIRECT": Raises(errors.APIStatusError),
            "RETRIED": Raises(errors.APIStatusError),
            "POLL": refused(errors.APIStatusError),
            "ASAMPLE": Raises(errors.APIStatusError),
            "FUTURES": ends_polling(),
        },
    ),
    "422": (
        httpx.Response(422, json={}),
        {
            "DIRECT": Raises(errors.UnprocessableEntityError),
            "RETRIED": Raises(errors.UnprocessableEntityError),
            "POLL": refused(errors.UnprocessableEntityError),
            "ASAMPLE": Raises(errors.UnprocessableEntityError),
            "FUTURES": ends_polling(),
        },
    ),
    "429": (
        httpx.Response(429, json={}),
        {
            "DIRECT": quickly(errors.RateLimitError),
            "RETRIED": in_rounds(errors.RateLimitError),
            "POLL": ForEver(30.0),
            "ASAMPLE": ForEver(1.0),
            "FUTURES": ForEver(1.0),
        },
    ),
    "429 Retry-After: 3": (
        httpx.Response(429, headers={"Retry-After": "3"}, json={}),
        {
            "DIRECT": Raises(errors.RateLimitError, 11, (30.0, 30.0)),
            "RETRIED": Raises(errors.RateLimitError, None, (300.0, 330.0)),
            "POLL": ForEver(30.0),
            "ASAMPLE": ForEver(3.0),
            "FUTURES": ForEver(1.0),
        },
    ),
    "500": (
        httpx.Response(500, json={}),
        {
            "DIRECT": quickly(errors.InternalServerError),
            "RETRIED": in_rounds(errors.InternalServerError),
            "POLL": ForEver(30.0),
            "ASAMPLE": for_five_minutes(errors.InternalServerError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "503": (
        httpx.Response(503, content=b"<html>down"),
        {
            "DIRECT": quickly(errors.InternalServerError),
            "RETRIED": in_rounds(errors.InternalServerError),
            "POLL": ForEver(30.0),
            "ASAMPLE": for_five_minutes(errors.InternalServerError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "500 x-should-retry: false": (  # the polls have rules of their own
        httpx.Response(500, headers={"x-should-retry": "false"}, json={}),
        {
            "DIRECT": Raises(errors.InternalServerError),
            "RETRIED": Raises(errors.InternalServerError),
            "POLL": ForEver(30.0),
            "ASAMPLE": Raises(errors.InternalServerError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "no answer": (
        httpx.ConnectError("refused"),
        {
            "DIRECT": quickly(errors.APIConnectionError),
            "RETRIED": in_rounds(errors.APIConnectionError),
            "POLL": ForEver(30.0),
            "ASAMPLE": for_five_minutes(errors.APIConnectionError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "no answer in time": (
        httpx.ReadTimeout("slow"),
        {
            "DIRECT": quickly(errors.APITimeoutError),
            "RETRIED": in_rounds(errors.APITimeoutError),
            "POLL": ForEver(30.0),
            "ASAMPLE": for_five_minutes(errors.APITimeoutError),
            "FUTURES": ForEver(1.0),
        },
    ),
    "200 that does not fit": (
        httpx.Response(200, content=b"<html>hello"),
        {
            "DIRECT": Raises(errors.APIResponseValidationError),
            "RETRIED": Raises(errors.APIResponseValidationError),
            "POLL": Raises(errors.WireFormatError, value_error=True),
            "ASAMPLE": Raises(errors.APIResponseValidationError),
            "FUTURES": ends_polling(),
        },
    ),
}


# --- the service and the calls --------------------------------------------------------------------


class OtherToken(FixedIdentity):
    """A token that is replaced once."""

    async def replacement(self, rejected: Secret) -> Secret | None:  # noqa: ARG002 - the protocol
        """Return another one."""
        return Secret("tml-other")


GOOD = {
    "create_session": {"session_id": "S1"},
    "optim_step": {"request_id": "r"},
    "asample": {"request_id": "r", "sample_sequence_ids": ["q"]},
    "retrieve_futures": {"completions": [{"state": "finished", "request_id": "r"}], "cursor": 1},
}
SAMPLE = {"sequences": [{"stop_reason": "stop", "tokens": [7], "logprobs": [-0.5]}]}


class Service:
    """Answers one path with trouble until its patience is at an end, and all else well."""

    def __init__(self, trouble: httpx.Response | Exception, path: str) -> None:
        self.clock = VirtualClock()
        self.attempts = 0
        self._trouble = trouble
        self._path = V1 + path

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix(V1)
        if request.url.path == self._path:
            self.attempts += 1
            if self.attempts <= PATIENCE:
                if isinstance(self._trouble, Exception):
                    raise self._trouble
                headers = dict(self._trouble.headers)
                return httpx.Response(
                    self._trouble.status_code, headers=headers, content=self._trouble.content
                )
        if name == "retrieve_future":
            sampling = request.headers["X-Tinker-Request-Type"] == "Sample"
            return httpx.Response(
                200, json=SAMPLE if sampling else {"path": "tinker://r/weights/a"}
            )
        return httpx.Response(200, json=GOOD[name])

    def link(self) -> Link:
        transport = HttpTransport(
            "http://service",
            OtherToken(None),
            make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(self)),
        )
        return Link(transport, self.clock, ServerFlags(billing_pause_s=BILLING_PAUSE_S))


class Anything(BaseModel):
    """Any JSON object."""


async def call(link: Link, item: Endpoint) -> object:
    return await link.call(item, Anything)


async def poll(link: Link) -> object:
    return await retrieve(link, Promise(request_id="r"), LOAD_RESULT)


async def sample(link: Link) -> object:
    admission = Admission(LocalLimits(random=lambda: 0.0), link.clock, ByteBudget())
    core = SamplingCore(link, admission)
    request = SampleRequest(ModelInput.from_ints([1]), sampling_session_id="s")
    try:
        return await core.sample(request, RetryConfig(enable_retry_logic=False))
    finally:
        await core.aclose()


async def poll_for_all(link: Link) -> object:
    poller = FuturesPoller(link, "s", 0)
    try:
        return await poller.wait_for("r")
    finally:
        await poller.aclose()


CALLS: dict[str, tuple[str, Callable[[Link], Awaitable[object]]]] = {
    "DIRECT": ("create_session", lambda link: call(link, endpoint.CREATE_SESSION)),
    "RETRIED": ("optim_step", lambda link: call(link, endpoint.OPTIM_STEP)),
    "POLL": ("retrieve_future", poll),
    "ASAMPLE": ("asample", sample),
    "FUTURES": ("retrieve_futures", poll_for_all),
}


async def observe(trouble: httpx.Response | Exception, kind: str) -> tuple[Any, Service]:
    """Make a call of a kind while the service is in trouble; give its result or error."""
    path, make = CALLS[kind]
    service = Service(trouble, path)
    link = service.link()
    outcome: Any
    try:
        outcome = await make(link)
    except errors.TinkerError as error:
        outcome = error
    finally:
        await link.aclose()
    return outcome, service


@pytest.mark.parametrize(
    "answer,kind", [(answer, kind) for answer, (_, row) in TABLE.items() for kind in row]
)
async def test_each_answer_leads_to_what_the_table_says(answer: str, kind: str) -> None:
    trouble, row = TABLE[answer]
    outcome, service = await observe(trouble, kind)
    expected, slept = row[kind], service.clock.slept
    if isinstance(expected, Raises):
        assert isinstance(outcome, expected.error)
        assert expected.error.__name__ == type(outcome).__name__
        assert expected.value_error is isinstance(outcome, ValueError)
        assert expected.attempts in {None, service.attempts}
        shortest, longest = expected.seconds
        assert shortest - 1e-6 <= sum(slept) <= longest + 1e-6
    else:
        assert not isinstance(outcome, Exception)
        assert service.attempts > PATIENCE
        assert pytest.approx(expected.longest_pause_s) == max(slept, default=0.0)


def test_the_table_is_complete() -> None:
    assert all(set(CALLS) == set(row) for _, row in TABLE.values())


# --- samples that are repeated as a whole ---------------------------------------------------------


@pytest.mark.parametrize(
    "status,repeated",
    [(400, False), (402, False), (403, False), (409, False), (410, True), (422, False)],
)
async def test_a_promise_that_is_refused_or_lost_is_sampled_anew_only_if_it_is_lost(
    status: int,
    repeated: bool,  # noqa: FBT001
) -> None:
    submitted: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("asample"):
            submitted.append(1)
            return httpx.Response(200, json=GOOD["asample"])
        if len(submitted) > 2:
            return httpx.Response(200, json=SAMPLE)
        return httpx.Response(status, json={"detail": "no"})

    transport = HttpTransport(
        "http://service",
        Secret("tml-key"),
        make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )
    flags = replace(ServerFlags(), billing_pause_s=0)
    link = Link(transport, VirtualClock(), flags)
    core = SamplingCore(link, Admission(LocalLimits(random=lambda: 0.0), link.clock, ByteBudget()))
    request = SampleRequest(ModelInput.from_ints([1]), sampling_session_id="s")
    try:
        if repeated:
            await core.sample(request)
            assert 3 == len(submitted)
        else:
            with pytest.raises(ValueError, match=str(status)) as caught:
                await core.sample(request)
            assert isinstance(caught.value, errors.APIStatusError)
            assert 1 == len(submitted)
    finally:
        await core.aclose()
        await link.aclose()

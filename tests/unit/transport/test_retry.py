from __future__ import annotations

from itertools import pairwise

import pytest

from tinker_ray import errors
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.retry import RetrySchedule, Wait, send
from tinker_ray.transport.scripted import Answer, ScriptedTransport, Sent, answer
from tinker_ray.wire import endpoint
from tinker_ray.wire.endpoint import Endpoint

NO_RETRIES = Endpoint("POST", "/x", retries=0, budget_s=0)
QUICK = Endpoint("POST", "/x", retries=3, budget_s=0)
ROUNDS = Endpoint("POST", "/x", retries=0, budget_s=300)
BOTH = Endpoint("POST", "/x", retries=1, budget_s=300)
PATIENT = Endpoint("POST", "/x", retries=10, budget_s=0)


def waits_of(
    item: Endpoint, *, chance: float = 0.0, retry_after_s: float | None = None, attempt_s: float = 0
) -> list[Wait]:
    """All waits of a call that never succeeds and whose attempts take ``attempt_s``."""
    now = 1000.0
    schedule = RetrySchedule(item, now, lambda: chance)
    waits: list[Wait] = []
    while True:
        now += attempt_s
        wait = schedule.next_wait(retryable=True, retry_after_s=retry_after_s, now=now)
        if wait is None:
            return waits
        now += wait.seconds
        waits.append(wait)


# --- the schedule -------------------------------------------------------------------------------


def test_quick_repetitions_double_up_to_ten_seconds() -> None:
    expected = [0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10]
    assert [Wait(seconds, new_round=False) for seconds in expected] == waits_of(PATIENT)


def test_quick_repetitions_come_up_to_a_quarter_earlier() -> None:
    assert [0.375, 0.75, 1.5] == [wait.seconds for wait in waits_of(QUICK, chance=1.0)]


def test_the_service_may_ask_for_another_wait() -> None:
    assert [7.0, 7.0, 7.0] == [wait.seconds for wait in waits_of(QUICK, retry_after_s=7.0)]


def test_rounds_double_up_to_thirty_seconds_and_end_right_at_the_budget() -> None:
    waits = waits_of(ROUNDS)
    assert [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30, 30, 29] == [w.seconds for w in waits]
    assert all(wait.new_round for wait in waits)
    assert 300 == sum(wait.seconds for wait in waits)


def test_the_time_of_attempts_counts_against_the_budget() -> None:
    assert [1, 2, 4, 8, 16, 11] == [wait.seconds for wait in waits_of(ROUNDS, attempt_s=43)]


def test_rounds_do_not_listen_to_retry_after() -> None:
    assert [1, 2, 4] == [wait.seconds for wait in waits_of(ROUNDS, retry_after_s=7.0)][:3]


def test_a_round_is_an_attempt_and_its_quick_repetitions() -> None:
    assert [False, True, False, True] == [wait.new_round for wait in waits_of(BOTH)][:4]
    assert [0.5, 1.0, 0.5, 2.0] == [wait.seconds for wait in waits_of(BOTH)][:4]


def test_what_no_repetition_mends_is_not_repeated() -> None:
    schedule = RetrySchedule(BOTH, 0.0, lambda: 0.0)
    assert schedule.next_wait(retryable=False, retry_after_s=1.0, now=0.0) is None
    assert [] == waits_of(NO_RETRIES)


# --- sending ------------------------------------------------------------------------------------


async def fail(
    outcome: Response | Exception, item: Endpoint
) -> tuple[errors.TinkerError, list[Sent], list[float]]:
    """Send what never succeeds; give the error, the attempts and the waits."""
    transport, clock = ScriptedTransport({item.path: [outcome]}), VirtualClock()
    with pytest.raises(errors.TinkerError) as caught:
        await send(transport, Request(item, item.path), clock)
    return caught.value, transport.sent, clock.slept


@pytest.mark.parametrize(
    "outcome,error,repeated",
    [
        (answer(status=302), errors.APIStatusError, False),
        (answer(status=400), errors.BadRequestError, False),
        (answer(status=401), errors.AuthenticationError, False),
        (answer(status=402), errors.BillingError, False),
        (answer(status=403), errors.PermissionDeniedError, False),
        (answer(status=404), errors.NotFoundError, False),
        (answer(status=410), errors.APIStatusError, False),
        (answer(status=422), errors.UnprocessableEntityError, False),
        (answer(status=408), errors.APIStatusError, True),
        (answer(status=409), errors.ConflictError, True),
        (answer(status=429), errors.RateLimitError, True),
        (answer(status=500), errors.InternalServerError, True),
        (answer(status=503), errors.InternalServerError, True),
        (answer(status=500, x_should_retry="false"), errors.InternalServerError, False),
        (answer(status=400, x_should_retry="true"), errors.BadRequestError, True),
        (errors.APIConnectionError(), errors.APIConnectionError, True),
        (errors.APITimeoutError(), errors.APITimeoutError, True),
        (errors.StaleHandleError("closed"), errors.StaleHandleError, False),
    ],
)
async def test_each_failure_is_repeated_or_raised_at_once(
    outcome: Response | Exception,
    error: type[errors.TinkerError],
    repeated: bool,  # noqa: FBT001
) -> None:
    raised, sent, slept = await fail(outcome, QUICK)
    assert type(raised) is error
    assert (4 if repeated else 1) == len(sent)
    assert (3 if repeated else 0) == len(slept)


async def test_quick_repetitions_wait_as_scheduled_and_keep_their_key() -> None:
    _, sent, slept = await fail(answer(status=500), QUICK)
    for waited, longest in zip(slept, [0.5, 1.0, 2.0], strict=True):
        assert 0.75 * longest <= waited <= longest
    keys = {item.headers["X-Idempotency-Key"] for item in sent}
    assert 1 == len(keys)
    assert keys.pop().startswith("stainless-python-retry-")
    assert ["0", "1", "2", "3"] == [item.headers["x-stainless-retry-count"] for item in sent]


async def test_each_round_has_a_key_of_its_own_and_counts_anew() -> None:
    _, sent, _ = await fail(answer(status=500), BOTH)
    assert ["0", "1"] * (len(sent) // 2) == [
        item.headers["x-stainless-retry-count"] for item in sent
    ]
    keys = [item.headers["X-Idempotency-Key"] for item in sent]
    assert keys[0::2] == keys[1::2]
    assert len(keys) // 2 == len(set(keys))


async def test_the_last_round_starts_when_the_budget_ends() -> None:
    _, sent, slept = await fail(answer(status=500), ROUNDS)
    assert 300 == sum(slept)
    assert len(slept) + 1 == len(sent)
    assert all(one <= other for one, other in pairwise(slept[:-1]))


async def test_the_services_wait_is_kept() -> None:
    _, _, slept = await fail(answer(status=429, retry_after="3"), QUICK)
    assert [3.0, 3.0, 3.0] == slept


async def test_success_ends_the_repetitions() -> None:
    script: list[Answer] = [answer(status=503), errors.APIConnectionError(), answer({"ok": True})]
    transport, clock = ScriptedTransport({"/x": script}), VirtualClock()
    response = await send(transport, Request(QUICK, "/x"), clock)
    assert (200, 3) == (response.status, len(transport.sent))


async def test_back_pressure_passes_through_at_once() -> None:
    path = endpoint.ASAMPLE.path
    transport, clock = (
        ScriptedTransport({path: [answer(status=429, retry_after="2")]}),
        VirtualClock(),
    )
    with pytest.raises(errors.RateLimitError) as caught:
        await send(transport, Request(endpoint.ASAMPLE, path), clock)
    assert (2.0, 1, []) == (caught.value.retry_after_s, len(transport.sent), clock.slept)


async def test_a_sample_that_meets_a_broken_service_is_repeated_in_rounds() -> None:
    path = endpoint.ASAMPLE.path
    script: list[Answer] = [
        answer(status=500),
        errors.APITimeoutError(),
        answer({"request_id": "r"}),
    ]
    transport, clock = ScriptedTransport({path: script}), VirtualClock()
    await send(transport, Request(endpoint.ASAMPLE, path), clock)
    assert [1.0, 2.0] == clock.slept


async def test_reading_needs_no_idempotency_key() -> None:
    transport = ScriptedTransport({"/x": [answer()]})
    await send(transport, Request(Endpoint("GET", "/x"), "/x"), VirtualClock())
    assert "X-Idempotency-Key" not in transport.sent[0].headers

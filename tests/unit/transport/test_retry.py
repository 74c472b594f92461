from __future__ import annotations

from itertools import pairwise

import pytest

from tinker_ray import errors
from tinker_ray.transport.auth import CredentialUnavailableError
from tinker_ray.transport.billing import BillingPause
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.retry import Patience, RetrySchedule, RoundFailure, Wait, send
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


# --- patience -------------------------------------------------------------------------------------


async def outcome_of(
    script: list[Answer], item: Endpoint, patience: Patience | None = None
) -> tuple[Response | errors.TinkerError, list[Sent], list[float]]:
    transport, clock = ScriptedTransport({item.path: script}), VirtualClock()
    outcome: Response | errors.TinkerError
    try:
        outcome = await send(transport, Request(item, item.path), clock, patience)
    except errors.TinkerError as error:
        outcome = error
    return outcome, transport.sent, clock.slept


@pytest.mark.parametrize("item,expected", [(QUICK, 3), (PATIENT, 3), (NO_RETRIES, 1)])
async def test_a_client_may_have_its_own_number_of_quick_repetitions(
    item: Endpoint, expected: int
) -> None:
    _, sent, _ = await outcome_of([answer(status=500)], item, Patience(max_retries=2))
    assert expected == len(sent)


async def test_a_402_is_waited_out_in_rounds_of_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script: list[Answer] = [*[answer({"detail": "pay"}, status=402)] * 100, answer({})]
    outcome, sent, slept = await outcome_of(script, BOTH)
    assert isinstance(outcome, Response)
    assert [5.0] * 100 == slept
    assert 101 == len({item.headers["X-Idempotency-Key"] for item in sent})
    assert 8 == len(caplog.records)
    assert "pay" in caplog.text


async def test_a_402_that_does_not_end_is_an_error() -> None:
    patience = Patience(billing=BillingPause(60.0))
    outcome, _, slept = await outcome_of([answer(status=402)], BOTH, patience)
    assert isinstance(outcome, errors.BillingError)
    assert 60 <= sum(slept) <= 70


@pytest.mark.parametrize("item", [QUICK, NO_RETRIES, endpoint.ASAMPLE])
async def test_a_402_of_calls_without_rounds_or_with_back_pressure_is_their_callers(
    item: Endpoint,
) -> None:
    outcome, sent, _ = await outcome_of([answer(status=402)], item)
    assert isinstance(outcome, errors.BillingError)
    assert 1 == len(sent)


async def test_a_credential_that_cannot_be_had_is_repeated_in_rounds_only() -> None:
    unavailable = CredentialUnavailableError("no token")
    script: list[Answer] = [unavailable, unavailable, answer({})]
    outcome, _, slept = await outcome_of(script, BOTH)
    assert isinstance(outcome, Response)
    assert [1.0, 2.0] == slept
    outcome, sent, _ = await outcome_of([unavailable], PATIENT)
    assert outcome is unavailable
    assert 1 == len(sent)


@pytest.mark.parametrize(
    "refusal,num_sent",
    [
        (errors.AuthenticationError("revoked"), 1),
        (errors.InternalServerError("down", status_code=503), 2),
    ],
)
async def test_a_refused_credential_is_judged_like_an_answer_without_quick_repetitions(
    refusal: errors.APIStatusError, num_sent: int
) -> None:
    outcome, sent, slept = await outcome_of([refusal, answer({})], BOTH)
    assert num_sent == len(sent)
    assert ([1.0] if num_sent > 1 else []) == slept
    assert (outcome is refusal) is (num_sent == 1)


async def test_each_failed_round_is_told_of() -> None:
    heard: list[tuple[int, str, bool]] = []

    def hear(failure: RoundFailure) -> None:
        heard.append((failure.round, type(failure.error).__name__, failure.repeated))

    script: list[Answer] = [*[answer(status=500)] * 4, answer(status=404)]
    await outcome_of(script, BOTH, Patience(on_round_failed=hear))
    assert [
        (0, "InternalServerError", True),
        (1, "InternalServerError", True),
        (2, "NotFoundError", False),
    ] == heard
    heard.clear()
    await outcome_of([answer(status=429)], endpoint.ASAMPLE, Patience(on_round_failed=hear))
    await outcome_of([answer(status=500)], QUICK, Patience(on_round_failed=hear))
    assert [] == heard  # back-pressure is no failure, and there are no rounds


async def test_a_redirect_is_a_failure_unless_it_is_what_was_asked_for() -> None:
    outcome, _, _ = await outcome_of([answer(status=302)], BOTH)
    assert isinstance(outcome, errors.APIStatusError)
    asking = Endpoint("GET", "/x", redirect_is_answer=True)
    outcome, _, _ = await outcome_of([answer(status=302)], asking)
    assert isinstance(outcome, Response)

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from tinker_ray import errors
from tinker_ray.core.link import Link, Promise, validate
from tinker_ray.core.polling import ResultKind, retrieve
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, Sent, answer
from tinker_ray.wire.codec import JSON, PROTOBUF
from tinker_ray.wire.endpoint import RETRIEVE_FUTURE

PROMISE = Promise(request_id="req-1", roundtrip_s=0.25)
TRY_AGAIN = {"type": "try_again", "request_id": "req-1", "queue_state": "active"}


class Result(BaseModel):
    value: int


KIND = ResultKind("OptimStep", lambda response, _promise: validate(response, Result))
RESULT = answer({"value": 7})


async def poll(
    script: list[Answer], kind: ResultKind[Any] = KIND
) -> tuple[Any, list[Sent], list[float]]:
    """Retrieve; give the result or error, the polls and the pauses."""
    transport, clock = ScriptedTransport({RETRIEVE_FUTURE.path: script}), VirtualClock()
    try:
        outcome = await retrieve(Link(transport, clock), PROMISE, kind)
    except (errors.TinkerError, LookupError) as error:
        outcome = error
    return outcome, transport.sent, clock.slept


def status(code: int, body: object = None) -> Response:
    return answer(body, status=code)


@pytest.mark.parametrize(
    "pending,pauses",
    [
        ([status(408, TRY_AGAIN)] * 3, []),
        ([answer(TRY_AGAIN)] * 3, []),
        ([status(429)] * 7, [1, 2, 4, 8, 16, 30, 30]),
        ([errors.APIConnectionError()] * 7, [1, 2, 4, 8, 16, 30, 30]),
        ([errors.APITimeoutError()] * 2, [1, 2]),
        ([status(500)], [0]),
        ([status(503)] * 8, [0, 1, 2, 4, 8, 16, 30, 30]),
        ([status(400)] * 3, []),
        ([errors.APIConnectionError(), status(408), errors.APIConnectionError()], [1, 1]),
        ([status(429), answer(TRY_AGAIN), status(429)], [1, 1]),
        ([status(400), status(400), status(408), status(400), status(400), status(400)], []),
    ],
)
async def test_a_pending_or_troubled_answer_is_polled_again_after_its_pause(
    pending: list[Answer], pauses: list[float]
) -> None:
    outcome, sent, slept = await poll([*pending, RESULT])
    assert Result(value=7) == outcome
    assert len(pending) + 1 == len(sent)
    assert pauses == slept


@pytest.mark.parametrize(
    "refusal,error",
    [
        (status(401), errors.AuthenticationError),
        (status(402), errors.BillingError),
        (status(403), errors.PermissionDeniedError),
        (status(404), errors.NotFoundError),
        (status(409), errors.ConflictError),
        (status(422), errors.UnprocessableEntityError),
        (status(302), errors.APIStatusError),
    ],
)
async def test_a_refusal_is_raised_at_once_with_the_promise(
    refusal: Response, error: type[errors.APIStatusError]
) -> None:
    outcome, sent, slept = await poll([refusal])
    assert type(outcome) is error
    assert ("req-1", 1, []) == (outcome.request_id, len(sent), slept)


async def test_a_bad_request_is_believed_the_fourth_time() -> None:
    outcome, sent, slept = await poll([status(400, {"detail": "bad"})])
    assert isinstance(outcome, errors.BadRequestError)
    assert (4, []) == (len(sent), slept)


async def test_a_lost_promise_asks_for_a_fresh_attempt() -> None:
    outcome, sent, _ = await poll([status(410)])
    assert isinstance(outcome, errors.RetryableError)
    assert isinstance(outcome.__cause__, errors.APIStatusError)
    assert (410, 1) == (outcome.__cause__.status_code, len(sent))


@pytest.mark.parametrize(
    "category,expected",
    [
        ("user", "user"),
        ("server", "server"),
        ("unknown", "unknown"),
        ("User", "unknown"),
        (None, "unknown"),
    ],
)
async def test_a_failed_operation_says_whose_fault_it_was(
    category: str | None, expected: str
) -> None:
    outcome, _, _ = await poll([answer({"error": "too long", "category": category})])
    assert isinstance(outcome, errors.RequestFailedError)
    assert ("too long", "req-1", expected) == (
        outcome.message,
        outcome.request_id,
        outcome.category,
    )


async def test_a_failure_is_understood_where_protobuf_was_asked_for() -> None:
    kind = ResultKind("Sample", KIND.decode, protobuf=True)
    outcome, _, _ = await poll([answer({"error": "no", "category": "server"})], kind)
    assert isinstance(outcome, errors.RequestFailedError)


async def test_connection_errors_are_waited_out_for_as_long_as_it_takes() -> None:
    outcome, _, slept = await poll([*[errors.APIConnectionError()] * 500, RESULT])
    assert Result(value=7) == outcome
    assert sum(slept) > 4 * 3600


async def test_a_closed_transport_ends_the_polling() -> None:
    outcome, _, slept = await poll([errors.StaleHandleError("closed")])
    assert isinstance(outcome, errors.StaleHandleError)
    assert [] == slept


async def test_a_result_that_does_not_fit_is_an_error_at_once() -> None:
    outcome, sent, _ = await poll([answer({"value": "seven"})])
    assert isinstance(outcome, errors.APIResponseValidationError)
    assert 1 == len(sent)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]"])
async def test_an_answer_that_is_no_object_is_an_error_at_once(content: bytes) -> None:
    outcome, _, _ = await poll([Response(200, {"content-type": JSON}, content)])
    assert isinstance(outcome, errors.WireFormatError)


async def test_polls_count_themselves_and_the_first_tells_the_roundtrip() -> None:
    _, sent, _ = await poll([status(408), RESULT])
    first, second = (dict(item.headers) for item in sent)
    assert {
        "X-Tinker-Request-Iteration": "0",
        "X-Tinker-Request-Type": "OptimStep",
        "X-Tinker-Create-Promise-Roundtrip-Time": "0.250000",
    } == first
    assert {"X-Tinker-Request-Iteration": "1", "X-Tinker-Request-Type": "OptimStep"} == second
    assert {"request_id": "req-1", "allow_metadata_only": False} == sent[0].json()


@pytest.mark.parametrize("protobuf,accept", [(True, PROTOBUF), (False, JSON)])
async def test_the_kind_of_result_decides_what_is_asked_for(protobuf: bool, accept: str) -> None:  # noqa: FBT001
    kind = ResultKind("Sample", lambda response, _promise: response.content, protobuf=protobuf)
    content = Response(200, {"content-type": "application/x-protobuf; v=1"}, b"\x01")
    outcome, sent, _ = await poll([content], kind)
    assert (b"\x01", accept) == (outcome, sent[0].request.accept)


async def test_giving_up_is_cancelling() -> None:
    transport = ScriptedTransport({RETRIEVE_FUTURE.path: [errors.APIConnectionError()]})
    task = asyncio.create_task(retrieve(Link(transport, VirtualClock()), PROMISE, KIND))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

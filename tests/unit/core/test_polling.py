from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from tests.fakes.clock import settle
from tinker_ray import errors
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link, Promise, validate
from tinker_ray.core.polling import ResultKind, as_value_error, retrieve
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.core.sdk_method import sdk_method
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
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
    script: list[Answer], kind: ResultKind[Any] = KIND, flags: ServerFlags | None = None
) -> tuple[Any, list[Sent], list[float]]:
    """Retrieve; give the result or error, the polls and the pauses."""
    transport, clock = ScriptedTransport({RETRIEVE_FUTURE.path: script}), VirtualClock()
    try:
        outcome = await retrieve(Link(transport, clock, flags or ServerFlags()), PROMISE, kind)
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
    assert (error.__name__, True) == (type(outcome).__name__, isinstance(outcome, error))
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
    assert {"request_id": "req-1", "allow_metadata_only": True} == sent[0].json()


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


# --- refusals are ValueErrors too -----------------------------------------------------------------


@pytest.mark.parametrize("refusal", [status(401), status(404), status(409), status(302)])
async def test_a_refusal_can_be_caught_as_upstream_raises_it_and_as_what_it_is(
    refusal: Response,
) -> None:
    outcome, _, _ = await poll([refusal])
    assert isinstance(outcome, ValueError)
    assert isinstance(outcome, errors.APIStatusError)
    assert isinstance(outcome.__cause__, errors.APIStatusError)
    assert refusal.status == outcome.status_code == outcome.__cause__.status_code


async def test_a_result_that_does_not_fit_is_a_value_error() -> None:
    outcome, _, _ = await poll([answer({"value": "seven"})])
    assert isinstance(outcome, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFoundError("gone", body={"a": 1}, request_id="r", retry_after_s=1.5),
        errors.APIResponseValidationError("no", "body", status_code=201),
    ],
)
def test_a_value_error_of_a_refusal_pickles_with_its_class_attributes_and_cause(
    error: errors.APIError,
) -> None:
    made = as_value_error(error)
    made.__cause__ = error
    back = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
    assert type(made) is type(back)
    assert (str(error), error.args, vars(error)) == (str(back), back.args, vars(back))
    assert isinstance(back, ValueError)
    assert type(error) is type(back.__cause__)
    assert type(error).__name__ in repr(back)


# --- large results --------------------------------------------------------------------------------


def announced(num_bytes: int) -> Response:
    return answer({"status": "complete_metadata", "response_payload_size": num_bytes})


async def test_a_large_result_is_fetched_when_there_is_room_for_it() -> None:
    outcome, sent, slept = await poll([status(408), announced(60 * 1024 * 1024), RESULT])
    assert (Result(value=7), []) == (outcome, slept)
    assert [True, True, False] == [item.json()["allow_metadata_only"] for item in sent]


async def test_large_results_wait_for_each_other() -> None:
    gate = asyncio.Event()

    class Service:
        polls: ClassVar[list[tuple[str, bool]]] = []

        async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
            body = json.loads(request.content)
            self.polls.append((body["request_id"], body["allow_metadata_only"]))
            if body["allow_metadata_only"]:
                return announced(80)
            await gate.wait()
            return RESULT

        async def aclose(self) -> None: ...

    link = Link(Service(), VirtualClock(), ServerFlags(response_bytes=100))
    tasks = [asyncio.create_task(retrieve(link, Promise(request_id=name), KIND)) for name in "abc"]
    await settle()
    assert {("a", False), ("b", False)} == {item for item in Service.polls if not item[1]}
    tasks[0].cancel()
    await settle()
    assert ("c", False) in Service.polls
    gate.set()
    assert [Result(value=7)] * 2 == await asyncio.gather(*tasks[1:])
    assert 100 == link.responses._budget.left_bytes


async def test_a_size_that_is_announced_twice_or_is_none_is_an_error() -> None:
    for script in ([announced(1), announced(1)], [announced(-1)]):
        outcome, _, _ = await poll([*script])
        assert isinstance(outcome, errors.WireFormatError)


async def test_an_old_service_hears_nothing_of_large_results() -> None:
    outcome, sent, _ = await poll([RESULT], flags=JSON_ONLY)
    assert Result(value=7) == outcome
    assert {"request_id": "req-1"} == sent[0].json()


async def test_a_size_that_is_known_beforehand_is_not_asked_for() -> None:
    transport = ScriptedTransport({RETRIEVE_FUTURE.path: [RESULT]})
    link = Link(transport, VirtualClock())
    await retrieve(link, PROMISE, KIND, size_bytes=5)
    assert [False] == [item.json()["allow_metadata_only"] for item in transport.sent]
    assert link.flags.response_bytes == link.responses._budget.left_bytes


# --- the account cannot pay -----------------------------------------------------------------------


async def test_a_402_is_waited_out_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    outcome, sent, slept = await poll([*[status(402)] * 700, RESULT])
    assert Result(value=7) == outcome
    assert {5.0} == set(slept)
    assert 701 == len(sent)
    assert 700 * 5 // 65 + 1 == len(caplog.records)  # each minute, at the next question


async def test_a_402_that_does_not_end_is_an_error() -> None:
    outcome, _, slept = await poll([status(402)], flags=ServerFlags(billing_pause_s=60))
    assert isinstance(outcome, errors.BillingError)
    assert isinstance(outcome, ValueError)
    assert 60 < sum(slept) <= 70


# --- credentials ----------------------------------------------------------------------------------


async def test_a_credential_that_is_refused_for_now_is_waited_for() -> None:
    down = errors.InternalServerError("no token", status_code=503)
    outcome, _, slept = await poll([down, down, RESULT])
    assert (Result(value=7), [1.0, 2.0]) == (outcome, slept)


async def test_a_credential_that_is_refused_for_good_is_an_error() -> None:
    outcome, sent, _ = await poll([errors.AuthenticationError("revoked")])
    assert isinstance(outcome, errors.AuthenticationError)
    assert isinstance(outcome, ValueError)
    assert 1 == len(sent)


# --- what people are told -------------------------------------------------------------------------


async def test_who_waits_hears_why() -> None:
    heard: list[tuple[str, str | None]] = []

    class Log(QueueLog):
        def on_state(self, state: str, reason: str | None = None) -> None:
            heard.append((state, reason))

    paused = {**TRY_AGAIN, "queue_state": "paused_capacity", "queue_state_reason": "full"}
    script: list[Answer] = [
        status(408, paused),
        answer(paused),
        status(408, {}),
        Response(408, {}, b"<html>a proxy"),
        RESULT,
    ]
    transport = ScriptedTransport({RETRIEVE_FUTURE.path: script})
    clock = VirtualClock()
    await retrieve(Link(transport, clock), PROMISE, KIND, Log("x", clock.now))
    assert [("paused_capacity", "full")] * 2 + [("active", None)] == heard


async def test_the_method_that_waits_is_named() -> None:
    transport = ScriptedTransport({RETRIEVE_FUTURE.path: [RESULT]})
    with sdk_method("TrainingClient.optim_step"):
        await retrieve(Link(transport, VirtualClock()), PROMISE, KIND)
    assert "TrainingClient.optim_step" == transport.sent[0].headers["x-sdk-method"]


async def test_telemetry_hears_of_failures_only() -> None:
    heard: list[tuple[str, object]] = []

    class Events:
        def log(self, event_name: str, event_data: Any = None, severity: str = "INFO") -> None:  # noqa: ANN401
            heard.append((event_name, (event_data["exception_type"], severity)))

    for last in (RESULT, status(404), answer({"error": "no", "category": "user"})):
        script: list[Answer] = [errors.APIConnectionError(), status(408), last]
        transport = ScriptedTransport({RETRIEVE_FUTURE.path: script})
        link = Link(transport, VirtualClock(), events=Events())
        with suppress(errors.TinkerError):
            await retrieve(link, PROMISE, KIND)
    prefix = "APIFuture.result_async."
    connection = (f"{prefix}connection_error", ("APIConnectionError", "WARNING"))
    assert [
        connection,
        connection,
        (f"{prefix}api_status_error", ("NotFoundError", "ERROR")),
        connection,
        (f"{prefix}application_error", ("RequestFailedError", "WARNING")),
    ] == heard

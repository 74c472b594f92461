from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinker_ray import errors
from tinker_ray.core import event
from tinker_ray.types import GenericEvent, UnhandledExceptionEvent

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def refusal(status_code: int) -> errors.APIStatusError:
    return errors.APIStatusError("no", status_code=status_code, body={"detail": "why"})


def test_events_of_a_session_have_upstreams_keys() -> None:
    start = event.session_start(NOW).model_dump(mode="json", exclude_none=True)
    end = event.session_end(NOW, timedelta(seconds=5.1)).model_dump(mode="json")
    assert {"event", "event_id", "event_session_index", "severity", "timestamp"} == set(start)
    assert ("SESSION_START", "INFO", "2026-01-02T03:04:05Z") == (
        start["event"],
        start["severity"],
        start["timestamp"],
    )
    assert ("SESSION_END", "0:00:05.100000") == (end["event"], end["duration"])


def test_an_exception_tells_its_type_its_text_and_where_it_was_raised() -> None:
    told = event.of_exception(raised(KeyError("mine")), "CRITICAL", NOW)
    assert isinstance(told, UnhandledExceptionEvent)
    assert ("KeyError", "'mine'", "CRITICAL") == (
        told.error_type,
        told.error_message,
        told.severity,
    )
    assert told.traceback is not None
    assert "test_event.py" in told.traceback
    unraised = event.of_exception(ValueError("x"), "ERROR", NOW)
    assert isinstance(unraised, UnhandledExceptionEvent)
    assert unraised.traceback is None


@pytest.mark.parametrize(
    "error",
    [
        refusal(400),
        refusal(404),
        refusal(429),
        errors.RequestFailedError("no", request_id="r", category="user"),
        raised(ValueError("x"), refusal(422)),
        raised(ValueError("x"), raised(RuntimeError("y"), refusal(403))),
    ],
)
def test_requests_at_fault_are_user_errors_wherever_they_are_in_the_chain(
    error: BaseException,
) -> None:
    told = event.of_exception(error, "CRITICAL", NOW)
    assert isinstance(told, GenericEvent)
    assert ("user_error", "WARNING") == (told.event_name, told.severity)
    assert type(error).__name__ == told.event_data["error_type"]
    assert event.is_user_error(error)


@pytest.mark.parametrize(
    "error",
    [
        refusal(408),
        refusal(500),
        errors.APIConnectionError(),
        errors.RequestFailedError("no", request_id="r", category="server"),
        ValueError("x"),
    ],
)
def test_what_the_service_or_the_line_is_to_blame_for_is_no_user_error(error: Exception) -> None:
    assert "UNHANDLED_EXCEPTION" == event.of_exception(error, "ERROR", NOW).event
    assert not event.is_user_error(error)


def test_a_user_error_tells_what_the_service_answered() -> None:
    told = event.of_exception(raised(ValueError("mine"), refusal(404)), "ERROR", NOW)
    assert isinstance(told, GenericEvent)
    assert {
        "error_type": "ValueError",
        "message": "mine",
        "status_code": 404,
        "body": {"detail": "why"},
    } == told.event_data


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert event.user_fault(first) is None


def test_data_becomes_what_json_has() -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    data = {"n": 1, "nan": float("nan"), "seen": {1, 2}, "t": (1, None, 2.5), "deep": deep}
    told = event.generic("e", {**data, "at": NOW}, "INFO", NOW).event_data
    assert (1, "nan", "{1, 2}", [1, None, 2.5], "2026-01-02 03:04:05+00:00") == (
        told["n"],
        told["nan"],
        told["seen"],
        told["t"],
        told["at"],
    )
    assert 50 > str(told["deep"]).count("[") // 2
    event.generic("e", {**data, "at": NOW}, "INFO", NOW).model_dump_json()


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        "key tml-abc_DEF-123 refused",
        f"token {JWT}",
        "Authorization: Bearer abc.def",
        "X-API-Key: private, more",
        "https://h/?api_key=private&x=1",
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    error = raised(RuntimeError(text))
    told = event.of_exception(error, "ERROR", NOW).model_dump_json()
    told += event.generic("e", {"deep": [{"text": text}]}, "INFO", NOW).model_dump_json()
    for secret in ("tml-abc", "eyJ", "abc.def", "private"):
        assert secret not in told
    assert "***" in told


def test_long_texts_are_cut() -> None:
    told = event.of_exception(raised(ValueError("x" * 100_000)), "ERROR", NOW)
    assert isinstance(told, UnhandledExceptionEvent)
    assert told.traceback is not None
    assert (event.MAX_TEXT, event.MAX_TEXT) == (len(told.error_message), len(told.traceback))

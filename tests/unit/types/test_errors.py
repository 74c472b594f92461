from __future__ import annotations

import inspect
import pickle
from types import SimpleNamespace

import pytest

from tinker_ray import errors

CONFLICT = SimpleNamespace(status_code=409, request=object(), headers={"x-api-key": "tml-secret"})


def test_upstreams_response_gives_its_status_alone() -> None:
    error = errors.APIStatusError("taken", response=CONFLICT, body={"detail": "taken"})
    assert (409, {"detail": "taken"}, "taken") == (error.status_code, error.body, error.message)
    assert "secret" not in repr(vars(error))
    assert 409 == errors.APIStatusError("taken", CONFLICT, None).status_code
    assert 409 == errors.APIResponseValidationError(CONFLICT, {}, "odd").status_code


@pytest.mark.parametrize("status,cls", sorted(errors.STATUS_ERRORS.items()))
def test_a_class_has_its_own_status(status: int, cls: type[errors.APIStatusError]) -> None:
    assert status == cls("no").status_code
    assert 418 == cls("no", status_code=418).status_code


def test_a_response_that_does_not_fit_was_a_success() -> None:
    error = errors.APIResponseValidationError("odd", body="x")
    assert ("odd", 200, "x") == (error.message, error.status_code, error.body)
    assert "schema" in errors.APIResponseValidationError(CONFLICT).message


@pytest.mark.parametrize(
    "error,message",
    [
        (errors.APIConnectionError(), "Connection error."),
        (errors.APIConnectionError("down"), "down"),
        (errors.APIConnectionError(request=object()), "Connection error."),
        (errors.APIConnectionError(message="down", request=None), "down"),
        (errors.APIConnectionError(object(), "down"), "down"),
        (errors.APITimeoutError(), "Request timed out."),
        (errors.APITimeoutError(object()), "Request timed out."),
        (errors.APITimeoutError("late"), "late"),
    ],
    ids=range(8),
)
def test_a_lost_connection_takes_a_message_with_or_without_a_request(
    error: errors.APIConnectionError, message: str
) -> None:
    assert (message, message, None) == (error.message, str(error), error.body)


def test_requests_and_responses_are_absent_and_say_so() -> None:
    error = errors.APIStatusError("no", CONFLICT, None)
    for name in ("request", "response"):
        assert not hasattr(error, name)
        assert getattr(error, name, None) is None
    with pytest.raises(AttributeError, match=r"read \.status_code and \.body"):
        _ = error.response
    with pytest.raises(AttributeError, match="keeps no request"):
        _ = error.request


@pytest.mark.parametrize(
    "given,category",
    [("user", "user"), ("server", "server"), ("unknown", "unknown"), ("User", "unknown")],
)
def test_a_failure_is_somebodys_fault(given: str, category: str) -> None:
    error = errors.RequestFailedError("no", "req-1", given)
    assert (category, "req-1") == (error.category, error.request_id)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert isinstance(back.category, errors.RequestErrorCategory)
    assert error.category is back.category


def test_categories_have_upstreams_names() -> None:
    assert ["Unknown", "Server", "User"] == [item.name for item in errors.RequestErrorCategory]
    assert errors.RequestErrorCategory.Unknown is errors.RequestErrorCategory.of(None)


UPSTREAM = {
    "APIError": "TinkerError",
    "APIResponseValidationError": "APIError",
    "APIStatusError": "APIError",
    "BadRequestError": "APIStatusError",
    "AuthenticationError": "APIStatusError",
    "BillingError": "APIStatusError",
    "PermissionDeniedError": "APIStatusError",
    "NotFoundError": "APIStatusError",
    "ConflictError": "APIStatusError",
    "UnprocessableEntityError": "APIStatusError",
    "RateLimitError": "APIStatusError",
    "InternalServerError": "APIStatusError",
    "APIConnectionError": "APIError",
    "APITimeoutError": "APIConnectionError",
    "RequestFailedError": "TinkerError",
    "ExperimentalWarning": "FutureWarning",
}


@pytest.mark.parametrize("name,parent", UPSTREAM.items())
def test_an_error_has_upstreams_parent(name: str, parent: str) -> None:
    assert parent in [cls.__name__ for cls in inspect.getmro(getattr(errors, name))]


def test_a_lost_promise_has_upstreams_name_too() -> None:
    assert errors.RetryableError is errors.RetryableException

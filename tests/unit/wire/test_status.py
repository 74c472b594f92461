from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray import errors
from tinker_ray.wire import status

NOON = 1_445_428_800.0
"""2015-10-21 12:00:00 UTC."""


@pytest.mark.parametrize(
    "code,error,retryable",
    [
        (302, errors.APIStatusError, False),
        (400, errors.BadRequestError, False),
        (401, errors.AuthenticationError, False),
        (402, errors.BillingError, False),
        (403, errors.PermissionDeniedError, False),
        (404, errors.NotFoundError, False),
        (408, errors.APIStatusError, True),
        (409, errors.ConflictError, True),
        (410, errors.APIStatusError, False),
        (413, errors.APIStatusError, False),
        (422, errors.UnprocessableEntityError, False),
        (429, errors.RateLimitError, True),
        (500, errors.InternalServerError, True),
        (502, errors.InternalServerError, True),
        (503, errors.InternalServerError, True),
        (504, errors.InternalServerError, True),
        (599, errors.InternalServerError, True),
    ],
)
def test_each_status_has_its_error_and_its_hope(
    code: int,
    error: type[errors.APIStatusError],
    retryable: bool,  # noqa: FBT001
) -> None:
    judgement = status.judge(code, {}, b'{"detail":"x"}')
    assert type(judgement.error) is error
    assert (code, {"detail": "x"}) == (judgement.error.status_code, judgement.error.body)
    assert f"Error code: {code} - {{'detail': 'x'}}" == judgement.error.message
    assert retryable is judgement.retryable is status.is_retryable(code)


@pytest.mark.parametrize(
    "code,header,retryable",
    [
        (400, "true", True),
        (404, "TRUE", True),
        (500, "false", False),
        (429, "False", False),
        (500, "maybe", True),
        (400, "", False),
    ],
)
def test_the_service_may_overrule_the_status(code: int, header: str, retryable: bool) -> None:  # noqa: FBT001
    assert retryable is status.judge(code, {"x-should-retry": header}, b"").retryable


@pytest.mark.parametrize("code,success", [(199, False), (200, True), (204, True), (300, False)])
def test_only_2xx_is_success(code: int, success: bool) -> None:  # noqa: FBT001
    assert success is status.is_success(code)


@pytest.mark.parametrize("code,success", [(200, True), (302, True), (399, True), (400, False)])
def test_a_redirect_is_success_where_it_is_the_answer(code: int, success: bool) -> None:  # noqa: FBT001
    assert success is status.is_success(code, redirects=True)


@pytest.mark.parametrize(
    "code,headers,rejected",
    [
        (400, {}, True),
        (400, {"content-length": "0"}, True),
        (400, {"content-length": "17"}, False),
        (401, {"content-length": "0"}, False),
        (500, {}, False),
    ],
)
def test_a_400_without_content_is_a_proxys(
    code: int,
    headers: dict[str, str],
    rejected: bool,  # noqa: FBT001
) -> None:
    assert rejected is status.is_proxy_rejection(code, headers)


@pytest.mark.parametrize(
    "code,challenge,invalid",
    [
        (401, 'Bearer realm="tinker", error="invalid_token"', True),
        (401, 'Bearer error="invalid_request"', False),
        (401, "", False),
        (403, 'Bearer error="invalid_token"', False),
    ],
)
def test_a_rejected_token_is_told_from_a_missing_right(
    code: int,
    challenge: str,
    invalid: bool,  # noqa: FBT001
) -> None:
    assert invalid is status.is_invalid_token(code, {"www-authenticate": challenge})


@pytest.mark.parametrize(
    "headers,expected",
    [
        ({}, None),
        ({"x-deprecation-note": ""}, None),
        ({"x-deprecation-level": "error"}, None),
        ({"x-deprecation-note": "soon"}, status.Deprecation("soon", is_error=False)),
        (
            {"x-deprecation-note": "now", "x-deprecation-level": " Error "},
            status.Deprecation("now", is_error=True),
        ),
        (
            {"x-deprecation-note": "soon", "x-deprecation-level": "warning"},
            status.Deprecation("soon", is_error=False),
        ),
    ],
)
def test_a_note_says_what_is_going_to_change(
    headers: dict[str, str], expected: status.Deprecation | None
) -> None:
    assert expected == status.deprecation(headers)


@pytest.mark.parametrize(
    "headers,expected_s",
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": "60.1"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "61000"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 12:00:20 GMT"}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 14:00:20 +0200"}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2015 11:59:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 12:30:00 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 9999999999999 0:0:0"}, None),
    ],
)
def test_retry_after_counts_between_0_and_60_seconds(
    headers: dict[str, str], expected_s: float | None
) -> None:
    assert expected_s == status.retry_after_s(headers, now=NOON)
    assert expected_s == status.judge(429, headers, b"", now=NOON).error.retry_after_s


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_no_header_breaks_the_judging(value: str) -> None:
    headers = {"retry-after": value, "retry-after-ms": value, "x-should-retry": value}
    status.judge(500, headers, b"")


@pytest.mark.parametrize(
    "content,body",
    [
        (b"", ""),
        (b"upstream down", "upstream down"),
        (b"\xff", "\ufffd"),
        (b'["a"]', ["a"]),
        (b"x" * 3000, "x" * 2000),
        (b"[" * 200_000, "[" * 2000),
    ],
)
def test_the_body_is_json_if_possible_else_an_excerpt(content: bytes, body: object) -> None:
    assert body == status.judge(500, {}, content).error.body


@pytest.mark.parametrize("code, lacks", [(404, True), (405, True), (410, True), (403, False)])
def test_a_service_may_lack_a_call(code: int, *, lacks: bool) -> None:
    assert lacks == status.lacks_call(code)

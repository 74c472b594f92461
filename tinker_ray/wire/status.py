"""What the answer to a request means: the one place where a status code is judged.

Pure: headers and body in, a judgement out. How often and when to repeat is the transport's
business.
"""

from __future__ import annotations

import email.utils
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.errors import STATUS_ERRORS, APIStatusError, InternalServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRYABLE_STATUSES = frozenset({408, 409, 429})
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
BAD_REQUEST = 400
UNAUTHORIZED = 401
GONE = 410
TOO_MANY_REQUESTS = 429
REQUEST_TIMEOUT = 408
NOT_FOUND = 404
SERVER_ERROR = 500
MAX_RETRY_AFTER_S = 60.0
BODY_EXCERPT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Judgement:
    """A failed answer: the error it stands for, and whether another attempt may succeed."""

    error: APIStatusError
    retryable: bool


@dataclass(frozen=True, slots=True)
class Deprecation:
    """What the service says is going to change, and whether it is serious."""

    text: str
    is_error: bool


def is_success(status: int, *, redirects: bool = False) -> bool:
    """Tell whether a status is 2xx; with ``redirects`` a 3xx is what was asked for as well."""
    return 200 <= status < (400 if redirects else 300)  # noqa: PLR2004


def is_redirect(status: int) -> bool:
    """Tell whether the answer is somewhere else."""
    return status in {301, 302, 303, 307, 308}


def keeps_method(status: int) -> bool:
    """Tell whether a redirect is to be followed with the method and the body of the request."""
    return status in {307, 308}


def says_gone(error: APIStatusError) -> bool:
    """Tell whether what was asked for is not there, or not any more."""
    return error.status_code in {NOT_FOUND, GONE}


def is_proxy_rejection(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is a proxy's that rejects everything: an empty 400.

    The service itself never answers 400 without saying how long its reason is.
    """
    return status == BAD_REQUEST and headers.get("content-length", "0") == "0"


def is_invalid_token(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether the service rejected the credential as such (RFC 6750), not who has it."""
    return status == UNAUTHORIZED and 'error="invalid_token"' in headers.get("www-authenticate", "")


def deprecation(headers: Mapping[str, str]) -> Deprecation | None:
    """Read what is going to change for clients like this one."""
    text = headers.get("x-deprecation-note")
    if not text:
        return None
    return Deprecation(text, headers.get("x-deprecation-level", "").strip().lower() == "error")


def is_retryable(status: int) -> bool:
    """Tell whether another attempt may succeed, as far as the status alone says."""
    return status in RETRYABLE_STATUSES or status >= SERVER_ERROR


def judge(
    status: int, headers: Mapping[str, str], content: bytes, *, now: float = 0.0
) -> Judgement:
    """Judge an answer that is not 2xx.

    Args:
        status: The HTTP status.
        headers: With lower-case names; ``x-should-retry`` overrides the rule for the status.
        content: The body; JSON if possible, else its first 2000 characters go into the error.
        now: Unix time in seconds, to read a ``Retry-After`` date.
    """
    body = _body(content)
    cls = STATUS_ERRORS.get(
        status, InternalServerError if status >= SERVER_ERROR else APIStatusError
    )
    error = cls(
        f"Error code: {status} - {body}",
        status_code=status,
        body=body,
        retry_after_s=retry_after_s(headers, now=now),
    )
    override = headers.get("x-should-retry", "").lower()
    retryable = override == "true" if override in {"true", "false"} else is_retryable(status)
    return Judgement(error, retryable)


def retry_after_s(headers: Mapping[str, str], *, now: float = 0.0) -> float | None:
    """Read ``retry-after-ms`` or ``retry-after`` (seconds or a date); None outside (0, 60] s."""
    value = _seconds(headers, now)
    return value if value is not None and 0 < value <= MAX_RETRY_AFTER_S else None


def _seconds(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds, after = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    with suppress(ValueError):
        return float(milliseconds) / 1000
    with suppress(ValueError):
        return float(after)
    with suppress(ValueError, OverflowError):
        date = email.utils.parsedate_tz(after)
        return None if date is None else email.utils.mktime_tz(date) - now
    return None


def _body(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace")[:BODY_EXCERPT_CHARACTERS]


def lacks_call(code: int) -> bool:
    """Tell whether a service does not have, or no longer has, what it was asked for."""
    return code in {404, 405, 410, 501}

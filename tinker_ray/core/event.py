"""What the service is told of errors and sessions, as values. Pure.

Texts are scrubbed: what looks like a credential is replaced, and so are the secrets that the caller
knows. Headers are never part of an event.
"""

from __future__ import annotations

import math
import re
import traceback
import uuid
from typing import TYPE_CHECKING, Any

from tinker_ray.errors import RequestFailedError
from tinker_ray.types import (
    GenericEvent,
    SessionEndEvent,
    SessionStartEvent,
    UnhandledExceptionEvent,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from tinker_ray.types import Severity, TelemetryEvent

MAX_TEXT = 20_000
"""Characters of one text; of a traceback the last, of others the first."""
HIDDEN = "***"

_CREDENTIAL = re.compile(
    r"tml-[A-Za-z0-9_\-]+"
    r"|eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]+){0,2}"
    r"|(?<=Bearer )\S+"
    r"|(?i:(?<=api-key: )|(?<=api_key=)|(?<=token=)|(?<=token: ))[^\s&,;)}\]]+"
)
_MAX_DEPTH = 6
_REQUEST_TIMEOUT = 408
_BAD_REQUEST, _SERVER_ERROR = 400, 500


def scrubbed(text: str) -> str:
    """Replace what looks like a credential."""
    return _CREDENTIAL.sub(HIDDEN, text)


def session_start(now: datetime) -> SessionStartEvent:
    """Tell that a session began."""
    return SessionStartEvent(event="SESSION_START", severity="INFO", **_stamp(now))


def session_end(now: datetime, duration: timedelta) -> SessionEndEvent:
    """Tell that a session ended."""
    stamp = _stamp(now)
    return SessionEndEvent(event="SESSION_END", severity="INFO", duration=str(duration), **stamp)


def generic(
    name: str, data: Mapping[str, object] | None, severity: Severity, now: datetime
) -> GenericEvent:
    """Tell of anything else.

    Args:
        name: Few names for many events.
        data: What JSON does not have becomes text.
        severity: How bad it is.
        now: The time.
    """
    plain: Any = _plain(dict(data or {}))
    return GenericEvent(
        event="GENERIC_EVENT",
        severity=severity,
        event_name=name,
        event_data=plain,
        **_stamp(now),
    )


def of_exception(exception: BaseException, severity: Severity, now: datetime) -> TelemetryEvent:
    """Tell of an exception: as a ``user_error`` if the request was at fault."""
    fault = user_fault(exception)
    if fault is not None:
        data: dict[str, object] = {"error_type": type(exception).__name__}
        data |= {"message": str(exception)} if str(exception) else {}
        data |= {
            name: value
            for name in ("status_code", "body")
            if (value := getattr(fault, name, None)) is not None
        }
        return generic("user_error", data, "WARNING", now)
    lines = traceback.format_exception(exception) if exception.__traceback__ else []
    return UnhandledExceptionEvent(
        event="UNHANDLED_EXCEPTION",
        severity=severity,
        error_type=type(exception).__name__,
        error_message=scrubbed(str(exception))[:MAX_TEXT],
        traceback=scrubbed("".join(lines))[-MAX_TEXT:] or None,
        **_stamp(now),
    )


def user_fault(exception: BaseException) -> BaseException | None:
    """Find the error that says that the request was at fault, in the chain of causes."""
    seen: set[int] = set()
    open_ends: list[BaseException | None] = [exception]
    while open_ends:
        error = open_ends.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if _is_user_fault(error):
            return error
        open_ends += [error.__context__, error.__cause__]
    return None


def is_user_error(exception: BaseException) -> bool:
    """Tell whether the request was at fault, rather than the service or the connection."""
    return user_fault(exception) is not None


def _is_user_fault(error: BaseException) -> bool:
    if isinstance(error, RequestFailedError) and error.category == "user":
        return True
    code = getattr(error, "status_code", None)
    is_refusal = isinstance(code, int) and _BAD_REQUEST <= code < _SERVER_ERROR
    return is_refusal and code != _REQUEST_TIMEOUT


def _stamp(now: datetime) -> dict[str, Any]:
    """Whoever sends the event gives it its index."""
    return {"event_id": str(uuid.uuid4()), "event_session_index": 0, "timestamp": now}


def _plain(value: object, depth: int = 0) -> object:
    """Turn a value into what JSON has."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return scrubbed(str(value))[:MAX_TEXT]

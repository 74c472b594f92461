"""Events that clients report of themselves. Times are timezone-aware."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import Field

from tinker_ray.types.model import Record, Strict

EventType: TypeAlias = Literal[
    "SESSION_START", "SESSION_END", "UNHANDLED_EXCEPTION", "GENERIC_EVENT"
]
Severity: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class _Event(Record):
    event: EventType
    event_id: str
    event_session_index: int
    severity: Severity
    timestamp: datetime


class SessionStartEvent(_Event):
    """A session began."""


class SessionEndEvent(_Event):
    """A session ended; ``duration`` is the text of a timedelta."""

    duration: str


class UnhandledExceptionEvent(_Event):
    """An exception that nobody caught."""

    error_message: str
    error_type: str
    traceback: str | None = None


class GenericEvent(_Event):
    """Anything else, by name."""

    event_name: str
    event_data: dict[str, object] = Field(default_factory=dict)


TelemetryEvent: TypeAlias = (
    SessionStartEvent | SessionEndEvent | UnhandledExceptionEvent | GenericEvent
)


class TelemetryBatch(Record):
    """Events of one process, in their order."""

    events: list[TelemetryEvent]
    platform: str
    sdk_version: str
    session_id: str
    process_uuid: str | None = None


class TelemetrySendRequest(Strict):
    """Sends a batch."""

    events: list[TelemetryEvent]
    platform: str
    sdk_version: str
    session_id: str
    process_uuid: str | None = None


class TelemetryResponse(Record):
    """The batch was taken."""

    status: Literal["accepted"]

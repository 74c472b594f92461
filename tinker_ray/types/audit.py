"""The record of who did what. Times are timezone-aware."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tinker_ray.types.model import Record


class AuditLogEntry(Record):
    """One thing that was done."""

    timestamp: datetime
    event: str
    event_details: dict[str, object] = Field(default_factory=dict)
    model_id: str | None = None
    tinker_path: str | None = None
    purpose: str | None = None


class AuditLogResponse(Record):
    """What was done."""

    entries: list[AuditLogEntry]

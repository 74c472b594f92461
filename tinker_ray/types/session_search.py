"""Searching sessions. Times are timezone-aware; pages follow each other by cursor."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import AwareDatetime, Field

from tinker_ray.types.model import Record, Strict
from tinker_ray.types.session_status import SessionStatus, SessionStatusQuery

_MAX_OWNERS = 10
_MAX_PAGE = 200


class OwnSearchOwner(Strict):
    """One's own sessions."""

    type: Literal["own"] = "own"


class AccessibleSearchOwner(Strict):
    """All sessions that one may see."""

    type: Literal["accessible"] = "accessible"


class UserSearchOwner(Strict):
    """The sessions of some users."""

    type: Literal["user"] = "user"
    owner_urns: list[str] = Field(min_length=1, max_length=_MAX_OWNERS)


SearchOwner: TypeAlias = OwnSearchOwner | AccessibleSearchOwner | UserSearchOwner


class SessionSearchCursor(Record):
    """The last session of a page."""

    last_created_at: AwareDatetime
    last_session_id: str


class SessionSearchRequest(Strict):
    """What to look for; what is not set does not narrow the search.

    ``user_metadata`` pairs must all match, ``display_name`` is a part of the name.
    """

    session_id: str | None = None
    project_ids: list[str] | None = None
    user_metadata: dict[str, str] = Field(default_factory=dict)
    display_name: str | None = Field(default=None, min_length=1)
    owner: SearchOwner = OwnSearchOwner()
    statuses: list[SessionStatusQuery] | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=_MAX_PAGE)
    cursor: SessionSearchCursor | None = None


class SessionSummary(Record):
    """A session that was found."""

    session_id: str
    created_at: datetime
    owner: str
    project_id: str
    status: SessionStatus | None = None
    checkpoints_count: int
    display_name: str | None = None
    user_metadata: dict[str, str] | None = None
    checkpoint_storage_bytes: int | None = None


class SessionSearchResponse(Record):
    """One page of sessions; ``next_cursor`` None ends the list."""

    sessions: list[SessionSummary]
    next_cursor: SessionSearchCursor | None = None


class TraceExportResponse(Record):
    """The state of a session's exported trace; ``url`` is there when it is ready."""

    status: Literal["pending", "ready", "failed"]
    url: str | None = None
    error: str | None = None

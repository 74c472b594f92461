"""The JSON requests about sessions, samplers, promises and reports: rules as in :mod:`schema`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from tinker_ray.engine.serving.schema import (
    MAX_INT64,
    Count,
    Metadata,
    Moment,
    Name,
    Request,
    Text,
    TextMetadata,
)


class CreateSessionRequest(Request):
    """POST create_session."""

    tags: list[Name] = Field(default=[], max_length=256)
    user_metadata: Metadata = Field(default={})
    sdk_version: Name = ""
    project_id: Name | None = None
    display_name: Name | None = None


class SessionHeartbeatRequest(Request):
    """POST session_heartbeat."""

    session_id: Name


class FinishReason(Request):
    """How a session ended."""

    type: Literal["success", "errored", "interrupted"] = "success"


class FinishSessionRequest(Request):
    """POST sessions/{id}/finish."""

    reason: FinishReason = FinishReason()
    detail: Text | None = None


class MoveSessionRequest(Request):
    """PUT sessions/{id}/project."""

    project_id: str = Field(min_length=1, max_length=512)


class OwnSessions(Request):
    """The caller's sessions."""

    type: Literal["own"]


class AccessibleSessions(Request):
    """All sessions that the caller may see."""

    type: Literal["accessible"]


class SessionsOfUsers(Request):
    """The sessions of some users."""

    type: Literal["user"]
    owner_urns: list[Name] = Field(min_length=1, max_length=10)


SearchOwner: TypeAlias = Annotated[
    OwnSessions | AccessibleSessions | SessionsOfUsers, Field(discriminator="type")
]


class StatusQuery(Request):
    """Sessions in one state."""

    type: Literal["active", "cancelled", "failed"]


class FinishedQuery(Request):
    """Sessions that their client ended, for one of the reasons if some are given."""

    type: Literal["client_finished"]
    reasons: list[Literal["success", "errored", "interrupted"]] | None = Field(
        default=None, min_length=1
    )


SessionStatusQuery: TypeAlias = Annotated[StatusQuery | FinishedQuery, Field(discriminator="type")]


class SearchCursor(Request):
    """The last session of a page."""

    last_created_at: Moment
    last_session_id: Name


class SearchSessionsRequest(Request):
    """POST sessions/search."""

    session_id: Name | None = None
    project_ids: list[Name] | None = None
    user_metadata: TextMetadata = Field(default={})
    display_name: str | None = Field(default=None, min_length=1, max_length=512)
    owner: SearchOwner = OwnSessions(type="own")
    statuses: list[SessionStatusQuery] | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=200)
    cursor: SearchCursor | None = None


class CreateSamplingSessionRequest(Request):
    """POST create_sampling_session."""

    session_id: Name
    sampling_session_seq_id: Count
    base_model: Name | None = None
    model_path: Name | None = None


class JoinSamplingSessionRequest(Request):
    """POST join_sampling_session."""

    sampling_session_id: Name


class RetrieveFutureRequest(Request):
    """POST retrieve_future."""

    request_id: Name
    allow_metadata_only: bool = False


class CancelFutureRequest(Request):
    """POST cancel_future."""

    request_id: Name


class FuturesTarget(Request):
    """One client of a sampling session."""

    type: Literal["sampling_session"] = "sampling_session"
    sampling_session_id: Name
    cloned_sampler_id: Count = 0


class RetrieveFuturesRequest(Request):
    """POST retrieve_futures; ``timeout`` in seconds, 0 for an answer at once."""

    target: FuturesTarget
    prev_cursor: int = Field(default=0, ge=0, le=MAX_INT64 >> 1)
    timeout: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    retrieved_request_ids: list[Name] = Field(default=[], max_length=100_000)


class ClientConfigRequest(Request):
    """POST client/config and client/dynamic_config."""

    sdk_version: Name = ""


class TelemetryRequest(Request):
    """POST telemetry."""

    events: list[dict[str, Any]] = Field(default=[], max_length=1000)
    platform: Name = ""
    sdk_version: Name = ""
    session_id: Name = ""
    process_uuid: Name | None = None

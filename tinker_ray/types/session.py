"""Sessions and samplers: how they are opened, kept and listed."""

from __future__ import annotations

from typing import Any, Literal

from tinker_ray.types.model import Record, Strict


class CreateSessionRequest(Strict):
    """Opens a session."""

    tags: list[str]
    user_metadata: dict[str, Any] | None
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None
    type: Literal["create_session"] = "create_session"


class CreateSessionResponse(Record):
    """The session, and what the service wants people to read."""

    type: Literal["create_session"] = "create_session"
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None
    session_id: str


class SessionHeartbeatRequest(Strict):
    """Keeps a session."""

    session_id: str
    type: Literal["session_heartbeat"] = "session_heartbeat"


class SessionHeartbeatResponse(Record):
    """The session is kept."""

    type: Literal["session_heartbeat"] = "session_heartbeat"


class GetSessionResponse(Record):
    """What a session made."""

    training_run_ids: list[str]
    sampler_ids: list[str]
    user_metadata: dict[str, str] | None = None
    display_name: str | None = None


class ListSessionsResponse(Record):
    """Session ids, newest first."""

    sessions: list[str]


class CreateSamplingSessionRequest(Strict):
    """Opens a sampling session on a base model or on saved weights."""

    session_id: str
    sampling_session_seq_id: int
    base_model: str | None = None
    model_path: str | None = None
    type: Literal["create_sampling_session"] = "create_sampling_session"


class CreateSamplingSessionResponse(Record):
    """The sampling session."""

    type: Literal["create_sampling_session"] = "create_sampling_session"
    sampling_session_id: str


class JoinSamplingSessionRequest(Strict):
    """Asks for a number of one's own in a sampling session that another client opened."""

    sampling_session_id: str
    type: Literal["join_sampling_session"] = "join_sampling_session"


class JoinSamplingSessionResponse(Record):
    """The number: no other client of the sampling session has it; the first client has 0."""

    type: Literal["join_sampling_session"] = "join_sampling_session"
    client_counter: int


class GetSamplerResponse(Record):
    """A sampling session's weights; ``model_path`` is None for a plain base model."""

    sampler_id: str
    base_model: str
    model_path: str | None = None

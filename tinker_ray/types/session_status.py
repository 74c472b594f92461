"""What became of a session, and how sessions are chosen by it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tinker_ray.types.model import Record, Strict

ClientSessionFinishReasonType: TypeAlias = Literal["success", "errored", "interrupted"]


class ClientSessionFinishSuccess(Record):
    """The client's work was done."""

    type: Literal["success"] = "success"


class ClientSessionFinishErrored(Record):
    """The client ended with an exception."""

    type: Literal["errored"] = "errored"


class ClientSessionFinishInterrupted(Record):
    """The client was interrupted."""

    type: Literal["interrupted"] = "interrupted"


ClientSessionFinishReason: TypeAlias = Annotated[
    ClientSessionFinishSuccess | ClientSessionFinishErrored | ClientSessionFinishInterrupted,
    Field(discriminator="type"),
]


class SessionFailedRequestReason(Record):
    """A request failed."""

    type: Literal["request"] = "request"
    request_id: str
    request_type: str


class SessionFailedTrainingRunReason(Record):
    """A training run failed."""

    type: Literal["training_run"] = "training_run"
    training_run_id: str


class SessionFailedSamplingSessionReason(Record):
    """A sampling session failed."""

    type: Literal["sampling_session"] = "sampling_session"
    sampling_session_id: str


SessionFailedReason: TypeAlias = Annotated[
    SessionFailedRequestReason
    | SessionFailedTrainingRunReason
    | SessionFailedSamplingSessionReason,
    Field(discriminator="type"),
]


class SessionActive(Record):
    """The session goes on."""

    type: Literal["active"] = "active"


class SessionCancelled(Record):
    """The service ended the session."""

    type: Literal["cancelled"] = "cancelled"
    detail: str | None = None


class ClientSessionFinished(Record):
    """The client ended the session."""

    type: Literal["client_finished"] = "client_finished"
    reason: ClientSessionFinishReason
    detail: str | None = None


class SessionFailed(Record):
    """Something failed for good; ``category`` says whose fault it was."""

    type: Literal["failed"] = "failed"
    category: Literal["user", "internal"]
    reason: SessionFailedReason
    message: str


SessionStatus: TypeAlias = Annotated[
    SessionFailed | SessionCancelled | ClientSessionFinished | SessionActive,
    Field(discriminator="type"),
]


class ActiveSessionStatusQuery(Strict):
    """Sessions that go on."""

    type: Literal["active"] = "active"


class CancelledSessionStatusQuery(Strict):
    """Sessions that the service ended."""

    type: Literal["cancelled"] = "cancelled"


class FailedSessionStatusQuery(Strict):
    """Sessions in which something failed for good."""

    type: Literal["failed"] = "failed"


class ClientFinishedSessionStatusQuery(Strict):
    """Sessions that their client ended, for one of ``reasons`` if given."""

    type: Literal["client_finished"] = "client_finished"
    reasons: list[ClientSessionFinishReasonType] | None = Field(default=None, min_length=1)


SessionStatusQuery: TypeAlias = (
    ActiveSessionStatusQuery
    | CancelledSessionStatusQuery
    | FailedSessionStatusQuery
    | ClientFinishedSessionStatusQuery
)

"""Operations under way: what the service promised, and what it says of a promise.

Large results (training, samples) may come as protobuf instead; see :mod:`tinker_ray.wire.codec`.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tinker_ray.errors import RequestErrorCategory
from tinker_ray.types.model import Record, Strict
from tinker_ray.types.outcome import (
    CreateModelResponse,
    LoadWeightsResponse,
    OptimStepResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
    UnloadModelResponse,
)
from tinker_ray.types.training import ForwardBackwardOutput
from tinker_ray.types.training_run import ModelID

RequestID: TypeAlias = str


class QueueState(Enum):
    """Why an operation is not being worked on, if it is not."""

    ACTIVE = "active"
    PAUSED_RATE_LIMIT = "paused_rate_limit"
    PAUSED_CAPACITY = "paused_capacity"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, value: object) -> QueueState:
        """Read the service's word; one that is not known here is ``UNKNOWN``."""
        return next((state for state in cls if state.value == value), cls.UNKNOWN)


class UntypedAPIFuture(Record):
    """A promise; ``sample_sequence_ids`` names the sequences of a sample, in their order."""

    request_id: RequestID
    model_id: ModelID | None = None
    sample_sequence_ids: list[str] | None = None


class FutureRetrieveRequest(Strict):
    """Asks for a result; ``allow_metadata_only`` lets the service announce a large one first."""

    request_id: RequestID
    allow_metadata_only: bool = False


class TryAgainResponse(Record):
    """The result is not there yet."""

    type: Literal["try_again"] = "try_again"
    request_id: RequestID
    queue_state: Literal["active", "paused_capacity", "paused_rate_limit"]
    queue_state_reason: str | None = None


class RequestFailedResponse(Record):
    """The operation failed."""

    error: str
    category: RequestErrorCategory


FutureRetrieveResponse: TypeAlias = (
    TryAgainResponse
    | ForwardBackwardOutput
    | OptimStepResponse
    | SaveWeightsResponse
    | LoadWeightsResponse
    | SaveWeightsForSamplerResponse
    | SaveWeightsExternalResponse
    | CreateModelResponse
    | UnloadModelResponse
    | RequestFailedResponse
)


class SamplingSessionFuturesTarget(Strict):
    """The samples of one client of a sampling session."""

    type: Literal["sampling_session"] = "sampling_session"
    sampling_session_id: str
    cloned_sampler_id: int = 0


class FuturesRetrieveRequest(Strict):
    """Asks which promises were kept since ``prev_cursor``.

    ``timeout`` is in seconds, None leaves it to the service; ``retrieved_request_ids`` are results
    that were read to the end and may be dropped.
    """

    target: SamplingSessionFuturesTarget
    prev_cursor: int = 0
    timeout: float | None = None
    retrieved_request_ids: list[RequestID] = Field(default_factory=list)


class FutureFinished(Record):
    """A promise was kept; the size is the result's, in bytes before compression."""

    state: Literal["finished"] = "finished"
    request_id: RequestID
    response_payload_uncompressed_size: int | None = None


class FutureFailed(Record):
    """A promise was broken; asking for its result tells why."""

    state: Literal["failed"] = "failed"
    request_id: RequestID


FutureCompletion: TypeAlias = Annotated[FutureFinished | FutureFailed, Field(discriminator="state")]


class FuturesRetrieveResponse(Record):
    """Promises that came to an end, and the cursor for the next question."""

    completions: list[FutureCompletion]
    cursor: int

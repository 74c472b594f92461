"""What the engine answers, and the bulk requests that it reads: described, not made here.

Answers are made by the endpoints, bulk requests are read by :mod:`tinker_ray.wire.codec`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """An answer, or a part of one; more keys may follow."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Refusal(Value):
    """Why a request was refused, and which part of it is at fault."""

    detail: str
    field: str | None = None


class Health(Value):
    """GET healthz."""

    status: Literal["ok"]


class Accepted(Value):
    """POST telemetry."""

    status: Literal["accepted"]


class Flags(Value):
    """POST client/config and client/dynamic_config."""


class PromiseAnswer(Value):
    """An accepted operation."""

    request_id: str
    model_id: str


class SamplePromise(Value):
    """An accepted sample."""

    request_id: str
    sample_sequence_ids: list[str] = []


class OpenedSession(Value):
    """POST create_session."""

    session_id: str
    type: Literal["create_session"]


class Beat(Value):
    """POST session_heartbeat."""

    type: Literal["session_heartbeat"]


class SamplingSession(Value):
    """POST create_sampling_session."""

    sampling_session_id: str
    type: Literal["create_sampling_session"]


class Joined(Value):
    """POST join_sampling_session."""

    client_counter: int
    type: Literal["join_sampling_session"]


class CopiedWeights(Value):
    """POST copy_weights."""

    tinker_path: str


class ExternalWeightsUrls(Value):
    """GET …/external_weights_urls."""

    urls: dict[str, str]
    expires: datetime


class CompletionValue(Value):
    """A sample that ended."""

    state: Literal["finished", "failed"]
    request_id: str
    response_payload_uncompressed_size: int | None = None


class Completions(Value):
    """POST retrieve_futures."""

    completions: list[CompletionValue]
    cursor: int


class TraceExport(Value):
    """GET sessions/{id}/trace_export."""

    status: Literal["pending", "ready", "failed"]
    url: str | None = None
    error: str | None = None


class SessionSummaryValue(Value):
    """A session that was found."""

    session_id: str
    created_at: datetime
    owner: str
    project_id: str
    status: dict[str, Any] | None
    checkpoints_count: int
    display_name: str | None
    user_metadata: dict[str, str] | None
    checkpoint_storage_bytes: int | None


class SearchCursorValue(Value):
    """Where the next page begins."""

    last_created_at: datetime
    last_session_id: str


class FoundSessions(Value):
    """POST sessions/search."""

    sessions: list[SessionSummaryValue]
    next_cursor: SearchCursorValue | None = None


class IssuedToken(Value):
    """POST auth/token."""

    jwt: str


class ApiKeyInfo(Value):
    """GET auth/apikey/me."""

    key_id: int
    name: str
    note: str
    details: dict[str, dict[str, str]]


class AuditEntryValue(Value):
    """Something that was done."""

    timestamp: datetime
    event: str
    event_details: dict[str, Any]


class AuditLog(Value):
    """GET audit."""

    entries: list[AuditEntryValue]


class UsageEventValue(Value):
    """What was used in an hour."""

    bucket_start: datetime
    bucket_end: datetime
    base_model: str | None
    event_info: dict[str, Any]


class BillingUsage(Value):
    """GET billing/usage/events."""

    data: list[UsageEventValue]
    sessions: dict[str, dict[str, Any]]


class StorageValue(Value):
    """What the checkpoints of a project take."""

    project_id: str | None
    checkpoint_count: int
    size_bytes: int
    size_gigabytes: float


class CheckpointStorage(Value):
    """GET billing/usage/checkpoints/current."""

    data: list[StorageValue]


class ChunkBody(Value):
    """A piece of a prompt."""

    tokens: list[int]


class ModelInputBody(Value):
    """A prompt."""

    chunks: list[ChunkBody]


class SamplingParamsBody(Value):
    """How to continue a prompt."""

    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | list[int] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class TensorBody(Value):
    """Numbers, row by row; with both kinds of indices those of a sparse matrix (CSR)."""

    data: list[float]
    dtype: Literal["int64", "float32"]
    shape: list[int] | None = None
    sparse_crow_indices: list[int] | None = None
    sparse_col_indices: list[int] | None = None


class SampleBody(Value):
    """POST asample."""

    prompt: ModelInputBody
    sampling_params: SamplingParamsBody
    num_samples: int | None = None
    sampling_session_id: str | None = None
    seq_id: int | None = Field(default=None, ge=0)
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int | None = None
    topk_sample_logprobs: int | None = None
    target_prompt_logprobs: TensorBody | None = None
    prompt_alt_tokens_k: int | None = None
    prompt_logprobs_last_n: int | None = None
    record_stability_info: bool | None = None


class DatumBody(Value):
    """One sequence to train on."""

    model_input: ModelInputBody
    loss_fn_inputs: dict[str, TensorBody]


class BatchBody(Value):
    """Sequences, and the loss to compute."""

    data: list[DatumBody]
    loss_fn: str
    loss_fn_config: dict[str, float | str] | None = None


class ForwardBody(Value):
    """POST forward."""

    forward_input: BatchBody
    model_id: str
    seq_id: int | None = Field(default=None, ge=1)


class ForwardBackwardBody(Value):
    """POST forward_backward, as JSON."""

    forward_backward_input: BatchBody
    model_id: str
    seq_id: int | None = Field(default=None, ge=1)

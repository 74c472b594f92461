"""The engine's description of itself (OpenAPI 3.1): what it answers, and what it reads.

Values here describe; they are not used to make answers. Requests that are bulk data are read by
:mod:`tinker_ray.wire.codec`, and only described here.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

_REF = "#/components/schemas/{model}"


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


_BODIES = (SampleBody, ForwardBody, ForwardBackwardBody)


def told(
    model: type[BaseModel] | None, *refusals: int, success: int = 200
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of an endpoint: a value, and the statuses with which it refuses."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal} for status in sorted({401, 413, 422, *refusals})
    }
    described: dict[str, Any] = {"description": "done"}
    if model is not None:
        described["model"] = model
    return {success: described, **answers}


def told_outcome(*refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers with the outcome of a promise."""
    answers = told(Value, *refusals)
    answers[200]["content"] = {codec.PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}
    answers[408] = {"model": Value, "description": "not done yet: ask again"}
    return answers


def told_file(*refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers with a file."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    types = ("application/json", "application/octet-stream", "application/x-tar")
    content = dict.fromkeys(types, binary)
    answers = told(None, *refusals)
    answers[200] = {"description": "the file", "content": content}
    answers[206] = {"description": "a part of the file", "content": content}
    return answers


def body_of(model: type[BaseModel], *, protobuf: bool = False) -> dict[str, Any]:
    """Describe a body that the endpoint reads by itself."""
    content: dict[str, Any] = {codec.JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    if protobuf:
        content[codec.PROTOBUF] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Let an app describe itself truthfully: optional keys may be null."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _add_bodies(schema)
            _allow_nulls(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # how FastAPI has it extended


def _add_bodies(schema: dict[str, Any]) -> None:
    components = schema["components"]["schemas"]
    for model in _BODIES:
        described = model.model_json_schema(ref_template=_REF)
        components |= described.pop("$defs", {})
        components[model.__name__] = described


def _allow_nulls(schema: dict[str, Any]) -> None:
    """Say of requests what they do: a null is a key that is not there."""
    bodies = [
        operation["requestBody"]
        for path in schema["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    components = schema["components"]["schemas"]
    for name in _referred(bodies, components):
        required = components[name].get("required", [])
        for key, item in components[name].get("properties", {}).items():
            if key not in required:
                components[name]["properties"][key] = {"anyOf": [item, {"type": "null"}]}


def _referred(value: object, components: Mapping[str, Any]) -> set[str]:
    """Name the components that a description refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference)}:
                name = reference.rpartition("/")[2]
                if name not in found:
                    found.add(name)
                    waiting.append(components[name])
            case dict(fields):
                waiting.extend(fields.values())
            case list(items):
                waiting.extend(items)
    return found

"""The JSON requests of the engine's API, as far as they are not bulk data.

Serves old and new clients: a missing key, a null and a default are the same, ``type`` is never
required and unknown keys are ignored. Knows nothing of what the values refer to.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinker_ray.types import AdamParams, LoraConfig

_MAX_INT64 = 2**63 - 1


class Request(BaseModel):
    """The rules for all requests."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value


class _Optimizer(Request):
    """Which optimizer a model has; the engine knows AdamW."""

    type: Literal["adamw"] = "adamw"


class CreateSessionRequest(Request):
    """POST create_session."""

    tags: list[str] = []
    user_metadata: dict[str, Any] = {}
    sdk_version: str = ""
    project_id: str | None = None
    display_name: str | None = None


class SessionHeartbeatRequest(Request):
    """POST session_heartbeat."""

    session_id: str


class FinishReason(Request):
    """How a session ended."""

    type: Literal["success", "errored", "interrupted"] = "success"


class FinishSessionRequest(Request):
    """POST sessions/{id}/finish."""

    reason: FinishReason = FinishReason()
    detail: str | None = None


class CreateSamplingSessionRequest(Request):
    """POST create_sampling_session."""

    session_id: str
    sampling_session_seq_id: int = Field(ge=0, le=_MAX_INT64)
    base_model: str | None = None
    model_path: str | None = None


class JoinSamplingSessionRequest(Request):
    """POST join_sampling_session."""

    sampling_session_id: str


class CreateModelRequest(Request):
    """POST create_model."""

    session_id: str
    model_seq_id: int = Field(ge=0, le=_MAX_INT64)
    base_model: str
    user_metadata: dict[str, Any] | None = None
    lora_config: LoraConfigRequest
    optimizer_config: _Optimizer = _Optimizer()


class LoraConfigRequest(Request):
    """The ``lora_config`` of a new model."""

    rank: int = Field(gt=0, le=512)
    seed: int | None = Field(default=None, ge=-_MAX_INT64 - 1, le=_MAX_INT64)
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

    def value(self) -> LoraConfig:
        """Give it as a public value."""
        return LoraConfig(**self.model_dump())


class ModelRequest(Request):
    """POST get_info and unload_model."""

    model_id: str


class TrainingRequest(Request):
    """What every training operation has."""

    model_id: str
    seq_id: int | None = Field(default=None, ge=1, le=_MAX_INT64)


class _AdamParamsRequest(Request):
    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-12, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    grad_clip_norm: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class _OptimizerParamsRequest(_AdamParamsRequest):
    type: Literal["adamw", "adam"]


class OptimStepRequest(TrainingRequest):
    """POST optim_step."""

    adam_params: _AdamParamsRequest | None = None
    optimizer_params: _OptimizerParamsRequest | None = None

    def params(self) -> AdamParams:
        """Give the AdamW parameters, whichever key they came under."""
        given = self.adam_params or self.optimizer_params or _AdamParamsRequest()
        return AdamParams(**given.model_dump(exclude={"type"}))


class SaveWeightsRequest(TrainingRequest):
    """POST save_weights; ``path`` is the name of the checkpoint."""

    path: str | None = None
    overwrite: bool = False
    ttl_seconds: int | None = Field(default=None, gt=0, le=_MAX_INT64)
    user_metadata: dict[str, str] | None = None


class SaveWeightsForSamplerRequest(TrainingRequest):
    """POST save_weights_for_sampler; without ``path`` it opens a sampling session."""

    path: str | None = None
    sampling_session_seq_id: int | None = Field(default=None, ge=0, le=_MAX_INT64)
    kind: Literal["snapshot", "inflight"] = "snapshot"
    ttl_seconds: int | None = Field(default=None, gt=0, le=_MAX_INT64)
    user_metadata: dict[str, str] | None = None


class LoadWeightsRequest(Request):
    """POST load_weights: into a model, or into a new one if there is a ``session_id``."""

    path: str
    optimizer: bool
    model_id: str | None = None
    seq_id: int | None = Field(default=None, ge=1, le=_MAX_INT64)
    session_id: str | None = None
    model_seq_id: int | None = Field(default=None, ge=0, le=_MAX_INT64)
    base_model: str | None = None
    user_metadata: dict[str, Any] | None = None
    optimizer_config: _Optimizer = _Optimizer()


class WeightsInfoRequest(Request):
    """POST weights_info."""

    tinker_path: str


class RetrieveFutureRequest(Request):
    """POST retrieve_future and cancel_future."""

    request_id: str


class TelemetryRequest(Request):
    """POST telemetry."""

    events: list[dict[str, Any]] = []


CreateModelRequest.model_rebuild()

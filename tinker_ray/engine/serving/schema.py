"""The JSON requests of the engine's API, as far as they are not bulk data.

Serves old and new clients: a missing key, a null and a default are the same, ``type`` is never
required and unknown keys are ignored; a value of another type than the one that is declared is
refused. Knows nothing of what the values refer to.
"""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from tinker_ray.engine.training.optimizer_family import check_family
from tinker_ray.errors import EngineError
from tinker_ray.types import AdamParams, LoraConfig

MAX_INT64 = 2**63 - 1
_MAX_METADATA_BYTES = 64 << 10
_WHOLE = re.compile(r"-?\d{1,40}\Z")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _fits(value: dict[str, Any]) -> dict[str, Any]:
    try:
        num_bytes = len(json.dumps(value).encode())
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if num_bytes > _MAX_METADATA_BYTES:
        message = f"has {num_bytes} bytes as JSON, of {_MAX_METADATA_BYTES} at most"
        raise ValueError(message)
    return value


def _is_written_out(value: object) -> object:
    """Refuse numbers, which would be read as seconds since 1970."""
    if not isinstance(value, str) or _DAY.match(value) is None:
        raise ValueError("is not written as in RFC 3339")
    return value


def _is_whole(value: object) -> object:
    """Refuse what only looks like a whole number, such as 3.0."""
    if isinstance(value, str) and _WHOLE.match(value) is None:
        raise ValueError("is not a whole number")
    return value


PageNumber: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INT64), BeforeValidator(_is_whole)]
"""In a query, where everything is text."""
Day: TypeAlias = Annotated[date, BeforeValidator(_is_written_out)]
Moment: TypeAlias = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_is_written_out)]
Name: TypeAlias = Annotated[str, Field(max_length=512)]
Text: TypeAlias = Annotated[str, Field(max_length=8192)]
Metadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(_fits)]
TextMetadata: TypeAlias = Annotated[dict[str, str], AfterValidator(_fits)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INT64)]
SeqId: TypeAlias = Annotated[int, Field(ge=1, le=MAX_INT64)]


class Request(BaseModel):
    """The rules for all requests."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value


def _known_family(name: object) -> object:
    family = "adamw" if name == "adam" else name
    try:
        check_family(family)
    except EngineError as error:
        raise ValueError(error.message) from error
    return family


Family: TypeAlias = Annotated[Literal["adamw"], BeforeValidator(_known_family)]


class OptimizerConfigRequest(Request):
    """Which optimizer a model has; the engine knows AdamW."""

    type: Family = "adamw"


class CreateModelRequest(Request):
    """POST create_model."""

    session_id: Name
    model_seq_id: Count
    base_model: Name
    user_metadata: Metadata | None = None
    lora_config: LoraConfigRequest
    optimizer_config: OptimizerConfigRequest = OptimizerConfigRequest()


class LoraConfigRequest(Request):
    """The ``lora_config`` of a new model."""

    rank: int = Field(gt=0, le=512)
    seed: int | None = Field(default=None, ge=-MAX_INT64 - 1, le=MAX_INT64)
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

    def value(self) -> LoraConfig:
        """Give it as a public value."""
        return LoraConfig(**self.model_dump())


class ModelRequest(Request):
    """POST get_info and unload_model."""

    model_id: Name


class TrainingRequest(Request):
    """What every training operation has."""

    model_id: Name
    seq_id: SeqId | None = None


class AdamParamsRequest(Request):
    """A step of AdamW."""

    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-12, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    grad_clip_norm: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class OptimizerParamsRequest(AdamParamsRequest):
    """A step of the optimizer that ``type`` names."""

    type: Family


class OptimStepRequest(TrainingRequest):
    """POST optim_step."""

    adam_params: AdamParamsRequest | None = None
    optimizer_params: OptimizerParamsRequest | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.adam_params is not None and self.optimizer_params is not None:
            raise ValueError("give adam_params or optimizer_params, not both")
        return self

    def params(self) -> AdamParams:
        """Give the AdamW parameters, whichever key they came under."""
        given = self.adam_params or self.optimizer_params or AdamParamsRequest()
        return AdamParams(**given.model_dump(exclude={"type"}))


class SaveWeightsRequest(TrainingRequest):
    """POST save_weights; ``path`` is the name of the checkpoint."""

    path: Name | None = None
    overwrite: bool = False
    ttl_seconds: Count | None = None
    user_metadata: TextMetadata | None = None


class SaveWeightsForSamplerRequest(TrainingRequest):
    """POST save_weights_for_sampler; without ``path`` it opens a sampling session."""

    path: Name | None = None
    sampling_session_seq_id: Count | None = None
    kind: Literal["snapshot", "inflight"] = "snapshot"
    ttl_seconds: Count | None = None
    user_metadata: TextMetadata | None = None


class SaveWeightsExternalRequest(TrainingRequest):
    """POST save_weights_external; files are encrypted to each of the recipients."""

    path: Name
    ttl_seconds: Count | None = None
    age_encryption_recipients: list[Text] = Field(default=[], max_length=10)
    user_metadata: TextMetadata | None = None


class LoadWeightsRequest(Request):
    """POST load_weights: into a model, or into a new one if there is a ``session_id``."""

    path: Name
    optimizer: bool
    model_id: Name | None = None
    seq_id: SeqId | None = None
    session_id: Name | None = None
    model_seq_id: Count | None = None
    base_model: Name | None = None
    user_metadata: Metadata | None = None
    optimizer_config: OptimizerConfigRequest | None = None
    weights_access_token: Text | None = Field(default=None, repr=False)


class CopyWeightsRequest(Request):
    """POST copy_weights: into a project, or into a place in a session."""

    source_path: Name
    destination_project_id: Name | None = None
    session_id: Name | None = None
    model_seq_id: Count | None = None
    ttl_seconds: Count | None = None
    weights_access_token: Text | None = Field(default=None, repr=False)


class WeightsInfoRequest(Request):
    """POST weights_info."""

    tinker_path: Name


class CheckpointTtlRequest(Request):
    """PUT …/ttl; without ``ttl_seconds`` the checkpoint lives for ever."""

    ttl_seconds: Count | None = None


class CustomLossInput(Request):
    """An input of a custom loss: its key in the datums, and how many dimensions it has."""

    name: str = Field(min_length=1, max_length=128)
    rank: Literal[0, 1, 2]


class CustomLossNode(Request):
    """A node of a traced loss."""

    op: Literal["placeholder", "get_attr", "call_function", "call_method", "call_module", "output"]
    name: str = Field(min_length=1, max_length=256)
    target: str = Field(min_length=1, max_length=256)
    args: list[Any] = []
    keywords: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("kwargs"), serialization_alias="kwargs"
    )


class CustomLossGraph(Request):
    """A traced loss."""

    format: Literal[1] = 1
    nodes: list[CustomLossNode] = Field(min_length=1, max_length=4096)


class CreateCustomLossRequest(Request):
    """POST create_custom_loss."""

    session_id: Name
    custom_loss_seq_id: Count
    name: Name
    inputs: list[CustomLossInput] = Field(min_length=1, max_length=64)
    graph: CustomLossGraph


CreateModelRequest.model_rebuild()

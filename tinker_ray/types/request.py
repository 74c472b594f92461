"""Requests that change models, as values; the bulk ones hold arrays.

``seq_id`` is the request's number among those of its model. Times to live are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AliasChoices, Field, SerializerFunctionWrapHandler, model_serializer

from tinker_ray.types.model import Strict
from tinker_ray.types.optimizer import (
    AdamOptimizerConfig,
    AdamParams,
    OptimizerConfig,
    OptimParams,
)
from tinker_ray.types.sampling import SamplingClientKind
from tinker_ray.types.training import ForwardBackwardInput, LoraConfig
from tinker_ray.types.training_run import ModelID


class CreateModelRequest(Strict):
    """Makes a model with new adapters."""

    session_id: str
    model_seq_id: int
    base_model: str
    user_metadata: dict[str, Any] | None = None
    lora_config: LoraConfig | None = None
    optimizer_config: OptimizerConfig = AdamOptimizerConfig()
    type: Literal["create_model"] = "create_model"


class GetInfoRequest(Strict):
    """Asks what a model is."""

    model_id: ModelID
    type: Literal["get_info"] = "get_info"


class UnloadModelRequest(Strict):
    """Gives a model up."""

    model_id: ModelID
    type: Literal["unload_model"] = "unload_model"


@dataclass(frozen=True)
class ForwardBackwardRequest:
    """Adds the gradients of a batch."""

    forward_backward_input: ForwardBackwardInput
    model_id: ModelID
    seq_id: int | None = None


@dataclass(frozen=True)
class ForwardRequest:
    """Computes a batch without gradients."""

    forward_input: ForwardBackwardInput
    model_id: ModelID
    seq_id: int | None = None


class OptimStepRequest(Strict):
    """Updates the weights; Adam's parameters travel as ``adam_params``, all others by type."""

    optim_params: OptimParams = Field(
        validation_alias=AliasChoices("optim_params", "adam_params", "optimizer_params")
    )
    model_id: ModelID
    seq_id: int | None = None
    type: Literal["optim_step"] = "optim_step"

    @property
    def adam_params(self) -> AdamParams | None:
        """The parameters if they are Adam's."""
        return self.optim_params if isinstance(self.optim_params, AdamParams) else None

    @model_serializer(mode="wrap")
    def _as_sent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if "optim_params" in fields:
            key = "optimizer_params" if self.adam_params is None else "adam_params"
            fields[key] = fields.pop("optim_params")
        return fields


class SaveWeightsRequest(Strict):
    """Saves weights and optimizer; ``path`` is the checkpoint's name."""

    model_id: ModelID
    path: str | None = None
    seq_id: int | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = None
    type: Literal["save_weights"] = "save_weights"


class LoadWeightsRequest(Strict):
    """Loads a checkpoint into a model, or into a new one (``session_id`` and ``model_seq_id``)."""

    model_id: ModelID | None = None
    seq_id: int | None = None
    session_id: str | None = None
    model_seq_id: int | None = None
    base_model: str | None = None
    user_metadata: dict[str, Any] | None = None
    path: str
    optimizer: bool
    optimizer_config: OptimizerConfig | None = None
    weights_access_token: str | None = Field(default=None, repr=False)
    type: Literal["load_weights"] = "load_weights"


class SaveWeightsForSamplerRequest(Strict):
    """Saves weights to sample from: by name, or for a sampling session."""

    model_id: ModelID
    path: str | None = None
    sampling_session_seq_id: int | None = None
    kind: SamplingClientKind = "snapshot"
    seq_id: int | None = None
    ttl_seconds: int | None = None
    user_metadata: dict[str, str] | None = None
    type: Literal["save_weights_for_sampler"] = "save_weights_for_sampler"


class SaveWeightsExternalRequest(Strict):
    """Saves weights for use elsewhere, encrypted to the recipients if there are any."""

    model_id: ModelID
    path: str
    seq_id: int | None = None
    ttl_seconds: int | None = None
    age_encryption_recipients: list[str] | None = None
    type: Literal["save_weights_external"] = "save_weights_external"


class CopyWeightsRequest(Strict):
    """Copies a checkpoint into a project, or into a run of one's own."""

    session_id: str | None = None
    model_seq_id: int | None = None
    destination_project_id: str | None = None
    source_path: str
    ttl_seconds: int | None = None
    weights_access_token: str | None = Field(default=None, repr=False)

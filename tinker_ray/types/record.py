"""What the service reports: results of saves and loads, runs, checkpoints, sessions, samplers.

Unknown keys are ignored, so that a newer service can say more. Times are timezone-aware.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

CheckpointType: TypeAlias = Literal["training", "sampler", "external"]
_SEGMENTS: dict[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_SCHEME = "tinker://"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class OptimStepResponse(_Record):
    """Metrics of an optimizer step, such as the gradient norm."""

    metrics: dict[str, float] | None = None


class SaveWeightsResponse(_Record):
    """``tinker://<run>/weights/<name>``."""

    path: str


class LoadWeightsResponse(_Record):
    """The path that was loaded, and the model that was made for it if one was."""

    path: str | None = None
    model_id: str | None = None


class SaveWeightsForSamplerResponse(_Record):
    """A path for a named save, a sampling session for an ephemeral one."""

    path: str | None = None
    sampling_session_id: str | None = None


class CreateModelResponse(_Record):
    """The id of a new model, which is also its training run's."""

    model_id: str


class Cursor(_Record):
    """Where a page stands in the whole list."""

    offset: int
    limit: int
    total_count: int


class Checkpoint(_Record):
    """A saved state; ``checkpoint_id`` is ``<segment>/<name>``."""

    checkpoint_id: str
    checkpoint_type: CheckpointType
    time: datetime
    tinker_path: str
    size_bytes: int | None = None
    public: bool = False
    user_metadata: dict[str, str] | None = None
    expires_at: datetime | None = None


class TrainingRun(_Record):
    """A model that was trained; ``training_run_id`` is the model id."""

    training_run_id: str
    base_model: str
    model_owner: str
    is_lora: bool
    last_request_time: datetime
    corrupted: bool = False
    lora_rank: int | None = None
    last_checkpoint: Checkpoint | None = None
    last_sampler_checkpoint: Checkpoint | None = None
    user_metadata: dict[str, str] | None = None


class TrainingRunsResponse(_Record):
    """One page of training runs."""

    training_runs: list[TrainingRun]
    cursor: Cursor


class CheckpointsListResponse(_Record):
    """One page of checkpoints, or all of a run's."""

    checkpoints: list[Checkpoint]
    cursor: Cursor | None = None


class ModelData(_Record):
    """What a model is made of."""

    arch: str | None = None
    model_name: str | None = None
    tokenizer_id: str | None = None


class GetInfoResponse(_Record):
    """A training client's model."""

    model_id: str
    model_data: ModelData
    is_lora: bool | None = None
    lora_rank: int | None = None
    model_name: str | None = None


class SupportedModel(_Record):
    """A base model that the service offers."""

    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


class GetServerCapabilitiesResponse(_Record):
    """What the service offers."""

    supported_models: list[SupportedModel]


class GetSessionResponse(_Record):
    """What a session made."""

    training_run_ids: list[str]
    sampler_ids: list[str]
    user_metadata: dict[str, str] | None = None
    display_name: str | None = None


class ListSessionsResponse(_Record):
    """Session ids, newest first."""

    sessions: list[str]


class GetSamplerResponse(_Record):
    """A sampling session's weights; ``model_path`` is None for a plain base model."""

    sampler_id: str
    base_model: str
    model_path: str | None = None


class WeightsInfoResponse(_Record):
    """What a checkpoint needs to be loaded."""

    base_model: str
    is_lora: bool
    lora_rank: int | None = None
    train_unembed: bool | None = None
    train_mlp: bool | None = None
    train_attn: bool | None = None


class ParsedCheckpointTinkerPath(_Record):
    """The parts of ``tinker://<run>/<segment>/<name>``."""

    tinker_path: str
    training_run_id: str
    checkpoint_type: CheckpointType
    checkpoint_id: str

    @classmethod
    def from_tinker_path(cls, tinker_path: str) -> ParsedCheckpointTinkerPath:
        """Split a path.

        Raises:
            ValueError: It has another shape.
        """
        parts = tinker_path.removeprefix(_SCHEME).split("/")
        well_formed = tinker_path.startswith(_SCHEME) and len(parts) == 3 and all(parts)  # noqa: PLR2004
        if not well_formed or parts[1] not in _SEGMENTS:
            segments = "|".join(_SEGMENTS)
            form = f"{_SCHEME}<run>/<{segments}>/<name>"
            message = f"invalid checkpoint path {tinker_path!r}: expected {form}"
            raise ValueError(message)
        return cls(
            tinker_path=tinker_path,
            training_run_id=parts[0],
            checkpoint_type=_SEGMENTS[parts[1]],
            checkpoint_id=f"{parts[1]}/{parts[2]}",
        )

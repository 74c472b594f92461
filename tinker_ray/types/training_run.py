"""Models that were trained, and what can be known of one. Times are timezone-aware."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from tinker_ray.types.checkpoint import Checkpoint, Cursor
from tinker_ray.types.model import Record
from tinker_ray.types.optimizer import AdamOptimizerConfig, OptimizerConfig

ModelID: TypeAlias = str
"""``<session>:train:<number>``; also the id of the model's training run."""


class TrainingRun(Record):
    """A model that was trained; ``training_run_id`` is the model id."""

    training_run_id: str
    base_model: str
    model_owner: str
    is_lora: bool
    corrupted: bool = False
    lora_rank: int | None = None
    last_request_time: datetime
    last_checkpoint: Checkpoint | None = None
    last_sampler_checkpoint: Checkpoint | None = None
    user_metadata: dict[str, str] | None = None


class TrainingRunsResponse(Record):
    """One page of training runs."""

    training_runs: list[TrainingRun]
    cursor: Cursor


class ModelData(Record):
    """What a model is made of."""

    arch: str | None = None
    model_name: str | None = None
    tokenizer_id: str | None = None


class GetInfoResponse(Record):
    """A training client's model."""

    type: Literal["get_info"] | None = None
    model_data: ModelData
    model_id: ModelID
    optimizer_config: OptimizerConfig = AdamOptimizerConfig()
    is_lora: bool | None = None
    lora_rank: int | None = None
    model_name: str | None = None


class WeightsInfoResponse(Record):
    """What a checkpoint needs to be loaded."""

    base_model: str
    optimizer_config: OptimizerConfig = AdamOptimizerConfig()
    is_lora: bool
    lora_rank: int | None = None
    train_unembed: bool | None = None
    train_mlp: bool | None = None
    train_attn: bool | None = None

"""The rows of the ledger as values. Knows nothing of SQL.

Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tinker_ray.types import CheckpointType, LoraConfig

ModelState: TypeAlias = Literal["live", "unloaded", "lost"]
"""``lost``: the process died that held the weights."""

OutcomeForm: TypeAlias = Literal["json", "error", "output", "sample"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a promise came to: JSON for small results and errors, protobuf for arrays."""

    form: OutcomeForm
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A client's session."""

    session_id: str
    created_at: float
    tags: list[str]
    user_metadata: dict[str, Any]
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in training, which is a training run."""

    model_id: str
    session_id: str
    base_model: str
    lora: LoraConfig
    user_metadata: dict[str, Any] | None
    state: ModelState
    created_at: float
    last_request_at: float


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """A sampling session: one version of weights, of the base model if ``directory`` is None.

    ``ephemeral`` weights belong to this session alone.
    """

    sampler_id: str
    session_id: str
    base_model: str
    model_path: str | None
    directory: Path | None
    ephemeral: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """Named weights on disk, and how to load them."""

    tinker_path: str
    run_id: str
    checkpoint_id: str
    checkpoint_type: CheckpointType
    directory: Path
    size_bytes: int
    created_at: float
    user_metadata: dict[str, str] | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class PromiseRow:
    """An accepted training operation; without an outcome it is still to be done.

    ``pruned``: its outcome was dropped to make room.
    """

    request_id: str
    kind: str
    model_id: str
    seq_id: int | None
    outcome: Outcome | None
    pruned: bool = False

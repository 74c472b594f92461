"""The rows of the ledger as values. Knows nothing of SQL.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tinker_ray.types import CheckpointType, LoraConfig

DEFAULT_PROJECT = "default"
"""Where everything is that was put into no project."""

LOCAL_OWNER = "local"
"""Who owns everything on an engine that asks for no key."""

ModelState: TypeAlias = Literal["live", "unloaded", "lost", "copied"]
"""``lost``: the process died that held the weights. ``copied``: a place for copies of checkpoints,
which was never trained."""

SamplerKind: TypeAlias = Literal["snapshot", "inflight"]
"""``inflight``: samples from the newest weights that its run published for such samplers."""

OutcomeForm: TypeAlias = Literal["json", "error", "output", "sample"]

UsageType: TypeAlias = Literal[
    "training", "sampling_prefill", "sampling_prefill_cached", "sampling_sample", "checkpoint"
]

ADAMW: Mapping[str, Any] = {"type": "adamw"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a promise came to: JSON for small results and errors, protobuf for arrays."""

    form: OutcomeForm
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A client's session; ``finish`` is the reason and detail with which it ended."""

    session_id: str
    created_at: float
    tags: list[str]
    user_metadata: dict[str, Any]
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None
    finished_at: float | None = None
    owner: str = LOCAL_OWNER
    last_seen_at: float = 0.0
    finish: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in training, which is a training run.

    ``session_id`` is empty for copies outside of sessions, which have a ``project_id`` of their
    own; the others are in their session's.
    """

    model_id: str
    session_id: str
    base_model: str
    lora: LoraConfig
    user_metadata: dict[str, Any] | None
    state: ModelState
    created_at: float
    last_request_at: float
    owner: str = LOCAL_OWNER
    project_id: str | None = None
    optimizer: Mapping[str, Any] = field(default_factory=lambda: dict(ADAMW))


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """A sampling session: one version of weights, of the base model if ``directory`` is None.

    ``ephemeral`` weights belong to this session alone. An ``inflight`` session has no directory of
    its own: it samples from that of its run.
    """

    sampler_id: str
    session_id: str
    base_model: str
    model_path: str | None
    directory: Path | None
    ephemeral: bool
    created_at: float
    owner: str = LOCAL_OWNER
    kind: SamplerKind = "snapshot"
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """Named weights on disk, and how to load them; ``public`` ones may be read by everybody."""

    tinker_path: str
    run_id: str
    checkpoint_id: str
    checkpoint_type: CheckpointType
    directory: Path
    size_bytes: int
    created_at: float
    user_metadata: dict[str, str] | None = None
    expires_at: float | None = None
    owner: str = LOCAL_OWNER
    public: bool = False


@dataclass(frozen=True, slots=True)
class PromiseRow:
    """An accepted operation; without an outcome it is still to be done.

    ``model_id`` and ``seq_id`` are its place, which no other operation can have. ``pruned``: its
    outcome was dropped to make room.
    """

    request_id: str
    kind: str
    model_id: str
    seq_id: int | None
    outcome: Outcome | None
    pruned: bool = False
    owner: str = LOCAL_OWNER


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key by its hash."""

    key_id: int
    key_hash: str
    owner: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class LossRow:
    """A custom loss that a session uploaded."""

    loss_id: str
    session_id: str
    name: str
    inputs: list[dict[str, Any]]
    graph: dict[str, Any]
    created_at: float


@dataclass(frozen=True, slots=True)
class Activity:
    """An operation that ended: for traces, and for counts of what was used.

    Attributes:
        track: What it was done on: a model, a sampling session.
        started_at: When its turn came; None if it had none of its own.
        usage: Quantities by type.
    """

    request_id: str
    kind: str
    owner: str
    session_id: str
    base_model: str
    track: str
    accepted_at: float
    started_at: float | None
    ended_at: float
    ok: bool
    usage: Mapping[UsageType, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Something that was done to a resource, such as ``checkpoint`` and ``published``."""

    at: float
    owner: str
    resource: str
    event: str
    details: dict[str, Any]

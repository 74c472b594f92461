"""What was used and what it costs.

Times are timezone-aware, buckets are hours, costs are US dollars.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tinker_ray.types.model import Record, Strict


class GetBillingUsageRequest(Strict):
    """Asks for a span of whole hours."""

    starting_on: datetime
    ending_before: datetime


class TrainingBillingEvent(Record):
    """Tokens that were trained on."""

    type: Literal["training"] = "training"
    token_count: int


class SamplingPrefillBillingEvent(Record):
    """Prompt tokens that were read, or found in a cache."""

    type: Literal["sampling_prefill"] = "sampling_prefill"
    cached: bool
    token_count: int


class SamplingSampleBillingEvent(Record):
    """Tokens that were drawn."""

    type: Literal["sampling_sample"] = "sampling_sample"
    token_count: int


class CheckpointBillingEvent(Record):
    """Checkpoints that were made."""

    type: Literal["checkpoint"] = "checkpoint"
    count: int


class StorageBillingEvent(Record):
    """Storage that was held."""

    type: Literal["storage"] = "storage"
    free: bool = False
    gigabyte_hours: float


BillingEventInfo: TypeAlias = Annotated[
    TrainingBillingEvent
    | SamplingPrefillBillingEvent
    | SamplingSampleBillingEvent
    | CheckpointBillingEvent
    | StorageBillingEvent,
    Field(discriminator="type"),
]


class BillingUsageEvent(Record):
    """One kind of use in one hour."""

    bucket_start: datetime
    bucket_end: datetime
    base_model: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    session_id: str | None = None
    project_id: str | None = None
    estimated_cost_usd: float | None = None
    effective_rate_usd_per_million_tokens: float | None = None
    effective_rate_usd_per_gigabyte_month: float | None = None
    event_info: BillingEventInfo


class BillingUsageSession(Record):
    """What a session that was billed says of itself."""

    user_metadata: dict[str, str] | None = None


class BillingUsageResponse(Record):
    """What was used, and the sessions concerned by id; costs are known up to a time."""

    data: list[BillingUsageEvent]
    sessions: dict[str, BillingUsageSession] = Field(default_factory=dict)
    cost_data_through: datetime | None = None


class GetCurrentCheckpointStorageUsageRequest(Strict):
    """Asks for the storage of a project, or of all."""

    project_id: str | None = None


class CurrentCheckpointStorageUsageItem(Record):
    """The checkpoints of one user in one project."""

    project_id: str | None = None
    org_user_urn: str | None = None
    user_email: str | None = None
    user_name: str | None = None
    checkpoint_count: int
    size_bytes: int
    size_gigabytes: float
    estimated_monthly_cost_usd: float | None = None


class CurrentCheckpointStorageUsageResponse(Record):
    """The storage that is held now."""

    effective_rate_usd_per_gigabyte_month: float | None = None
    data: list[CurrentCheckpointStorageUsageItem]

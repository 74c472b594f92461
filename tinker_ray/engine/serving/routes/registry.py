"""Endpoints that list training runs and checkpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request, Response

from tinker_ray.engine.serving.answer import host_of, record_answer
from tinker_ray.types import (
    Checkpoint,
    CheckpointsListResponse,
    Cursor,
    TrainingRun,
    TrainingRunsResponse,
)

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.store.row import CheckpointRow, ModelRow

router = APIRouter()

OWNER = "local"
"""The owner of every run: the engine knows no accounts."""

Limit = Annotated[int, Query(ge=0)]


@router.get("/training_runs")
async def list_training_runs(request: Request, limit: Limit = 20, offset: Limit = 0) -> Response:
    """List training runs, newest first."""
    host = host_of(request)
    rows = host.ledger.models(limit=limit, offset=offset)
    return record_answer(
        TrainingRunsResponse(
            training_runs=[_training_run(host, row) for row in rows],
            cursor=Cursor(offset=offset, limit=limit, total_count=host.ledger.num_models()),
        )
    )


@router.get("/training_runs/{run_id}")
async def get_training_run(run_id: str, request: Request) -> Response:
    """Tell about one training run."""
    host = host_of(request)
    return record_answer(_training_run(host, host.runs.model(run_id, field="training_run_id")))


@router.get("/training_runs/{run_id}/checkpoints")
async def list_run_checkpoints(run_id: str, request: Request) -> Response:
    """List the checkpoints of a training run, newest first."""
    host = host_of(request)
    host.runs.model(run_id, field="training_run_id")
    rows = host.ledger.run_checkpoints(run_id)
    return record_answer(CheckpointsListResponse(checkpoints=[_checkpoint(row) for row in rows]))


@router.get("/checkpoints")
async def list_checkpoints(request: Request, limit: Limit = 100, offset: Limit = 0) -> Response:
    """List all checkpoints, newest first."""
    host = host_of(request)
    rows = host.ledger.checkpoints(limit=limit, offset=offset)
    return record_answer(
        CheckpointsListResponse(
            checkpoints=[_checkpoint(row) for row in rows],
            cursor=Cursor(offset=offset, limit=limit, total_count=host.ledger.num_checkpoints()),
        )
    )


def _training_run(host: Host, row: ModelRow) -> TrainingRun:
    newest: dict[str, Checkpoint] = {}
    for checkpoint in host.ledger.run_checkpoints(row.model_id):
        newest.setdefault(checkpoint.checkpoint_type, _checkpoint(checkpoint))
    metadata = row.user_metadata
    return TrainingRun(
        training_run_id=row.model_id,
        base_model=row.base_model,
        model_owner=OWNER,
        is_lora=True,
        corrupted=row.state == "lost",
        lora_rank=row.lora.rank,
        last_request_time=_time(row.last_request_at),
        last_checkpoint=newest.get("training"),
        last_sampler_checkpoint=newest.get("sampler"),
        user_metadata=metadata and {key: str(value) for key, value in metadata.items()},
    )


def _checkpoint(row: CheckpointRow) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=row.checkpoint_id,
        checkpoint_type=row.checkpoint_type,
        time=_time(row.created_at),
        tinker_path=row.tinker_path,
        size_bytes=row.size_bytes,
        user_metadata=row.user_metadata,
        expires_at=None if row.expires_at is None else _time(row.expires_at),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)

"""Endpoints that tell of training runs and of their checkpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, record_answer
from tinker_ray.engine.serving.generation import lists_exports
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import not_found
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import PageNumber
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

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

AccessScope = Literal["owned", "accessible"]


@router.get("/training_runs", responses=told(TrainingRunsResponse))
async def list_training_runs(
    request: Request,
    limit: PageNumber = 20,
    offset: PageNumber = 0,
    access_scope: AccessScope = "owned",  # noqa: ARG001 - what may be seen is owned
    project_id: str | None = None,
) -> Response:
    """List training runs, newest first."""
    host, owner = host_of(request), caller_of(request).owner
    models = host.ledger.models
    rows = models.page(owner, limit=limit, offset=offset, project_id=project_id)
    total_count = models.count(owner, project_id=project_id)
    return record_answer(
        request,
        TrainingRunsResponse(
            training_runs=[_training_run(row, _visible(host, row, owner)) for row in rows],
            cursor=Cursor(offset=offset, limit=limit, total_count=total_count),
        ),
    )


@router.get("/training_runs/{run_id}", responses=told(TrainingRun, 404))
async def get_training_run(
    run_id: str, request: Request, access_scope: AccessScope = "owned"
) -> Response:
    """Tell about one training run: an own one, or one with checkpoints that are public."""
    host, owner = host_of(request), caller_of(request).owner
    row = host.ledger.models.get(run_id)
    checkpoints = [] if row is None else _visible(host, row, owner)
    shared = access_scope == "accessible" and checkpoints
    if row is None or not (row.owner == owner or shared):
        raise not_found(f"there is no training run {run_id!r}", "training_run_id")
    return record_answer(request, _training_run(row, checkpoints))


@router.get("/training_runs/{run_id}/checkpoints", responses=told(CheckpointsListResponse, 404))
async def list_run_checkpoints(run_id: str, request: Request) -> Response:
    """List the checkpoints of a training run, newest first; of another's the public ones."""
    host, owner = host_of(request), caller_of(request).owner
    row = host.ledger.models.get(run_id)
    checkpoints = [] if row is None else _visible(host, row, owner)
    if row is None or not (row.owner == owner or checkpoints):
        raise not_found(f"there is no training run {run_id!r}", "training_run_id")
    return record_answer(request, CheckpointsListResponse(checkpoints=_told(request, checkpoints)))


@router.get("/checkpoints", responses=told(CheckpointsListResponse))
async def list_checkpoints(
    request: Request, limit: PageNumber = 100, offset: PageNumber = 0
) -> Response:
    """List all checkpoints of the caller, newest first."""
    host, owner = host_of(request), caller_of(request).owner
    rows = host.ledger.checkpoints.page(owner, host.now(), limit=limit, offset=offset)
    total_count = host.ledger.checkpoints.count(owner, host.now())
    return record_answer(
        request,
        CheckpointsListResponse(
            checkpoints=_told(request, rows),
            cursor=Cursor(offset=offset, limit=limit, total_count=total_count),
        ),
    )


def _visible(host: Host, run: ModelRow, owner: str) -> list[CheckpointRow]:
    rows = host.ledger.checkpoints.of_run(run.model_id, host.now())
    return [row for row in rows if row.owner == owner or row.public]


def _told(request: Request, rows: list[CheckpointRow]) -> list[Checkpoint]:
    """Make public values, of what the client knows."""
    exports = lists_exports(request.headers.get("x-stainless-package-version", ""))
    return [_checkpoint(row) for row in rows if exports or row.checkpoint_type != "external"]


def _training_run(row: ModelRow, checkpoints: list[CheckpointRow]) -> TrainingRun:
    newest: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        newest.setdefault(checkpoint.checkpoint_type, _checkpoint(checkpoint))
    metadata = row.user_metadata
    return TrainingRun(
        training_run_id=row.model_id,
        base_model=row.base_model,
        model_owner=row.owner,
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
        public=row.public,
        user_metadata=row.user_metadata,
        expires_at=None if row.expires_at is None else _time(row.expires_at),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)

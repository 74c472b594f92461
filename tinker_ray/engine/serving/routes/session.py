"""Endpoints about sessions."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import host_of, json_answer, record_answer
from tinker_ray.engine.serving.schema import (
    CreateSessionRequest,
    FinishSessionRequest,
    SessionHeartbeatRequest,
)
from tinker_ray.engine.store.row import SessionRow
from tinker_ray.types import GetSessionResponse, ListSessionsResponse

if TYPE_CHECKING:
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.row import ModelRow

router = APIRouter()


@router.post("/create_session")
async def create_session(body: CreateSessionRequest, request: Request) -> Response:
    """Open a session."""
    row = SessionRow(
        session_id=str(uuid.uuid4()),
        created_at=time.time(),
        tags=body.tags,
        user_metadata=body.user_metadata,
        sdk_version=body.sdk_version,
        project_id=body.project_id,
        display_name=body.display_name,
    )
    host_of(request).ledger.add_session(row)
    return json_answer({"session_id": row.session_id, "type": "create_session"})


@router.post("/session_heartbeat")
async def session_heartbeat(body: SessionHeartbeatRequest, request: Request) -> Response:
    """Take a sign of life; a finished session is gone."""
    host = host_of(request)
    host.session(body.session_id)
    host.ledger.touch_session(body.session_id, time.time())
    return json_answer({"type": "session_heartbeat"})


@router.post("/sessions/{session_id}/finish")
async def finish_session(session_id: str, body: FinishSessionRequest, request: Request) -> Response:
    """End a session: its models are unloaded, its samplers go on for a while."""
    host = host_of(request)
    row = host.session(session_id, open_only=False)
    if row.finished_at is None:
        host.ledger.finish_session(session_id, body.model_dump(), time.time())
        for model in host.ledger.session_models(session_id):
            if model.state == "live":
                served = host.shelf.find(model.base_model)
                work = training_work.unload(host, served, model.model_id)
                host.runs.accept("unload_model", model.model_id, None, partial(_given, work))
        host.sweep()
    return json_answer({})


def _given(work: Work, _: ModelRow) -> Work:
    return work


@router.get("/sessions")
async def list_sessions(
    request: Request,
    limit: Annotated[int, Query(ge=1)] = 20,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """List sessions, newest first."""
    sessions = host_of(request).ledger.session_ids(limit=limit, offset=offset)
    return record_answer(ListSessionsResponse(sessions=sessions))


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, request: Request) -> Response:
    """Tell what a session made."""
    host = host_of(request)
    row = host.session(session_id, open_only=False)
    return record_answer(
        GetSessionResponse(
            training_run_ids=[model.model_id for model in host.ledger.session_models(session_id)],
            sampler_ids=[
                sampler.sampler_id for sampler in host.ledger.session_samplers(session_id)
            ],
            user_metadata={key: str(value) for key, value in row.user_metadata.items()},
            display_name=row.display_name,
        )
    )

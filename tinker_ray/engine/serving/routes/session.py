"""Endpoints about sessions."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from tinker_ray.engine.serving import training_work
from tinker_ray.engine.serving.answer import (
    caller_of,
    host_of,
    json_answer,
    record_answer,
    url_of,
)
from tinker_ray.engine.serving.answer_schema import Beat, OpenedSession, TraceExport
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import PageNumber
from tinker_ray.engine.serving.session_schema import (
    CreateSessionRequest,
    FinishSessionRequest,
    MoveSessionRequest,
    SessionHeartbeatRequest,
)
from tinker_ray.engine.store.row import SessionRow
from tinker_ray.types import GetSessionResponse, ListSessionsResponse

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.training_runs import Work
    from tinker_ray.engine.store.row import ModelRow

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_AccessScope = Annotated[str, Query(pattern="^(owned|accessible)$")]


@router.post("/create_session", responses=told(OpenedSession))
async def create_session(
    body: CreateSessionRequest,
    request: Request,
    x_idempotency_key: Annotated[str | None, Header(max_length=512)] = None,
) -> Response:
    """Open a session; a repetition under one idempotency key finds the same one."""
    host, caller = host_of(request), caller_of(request)
    if x_idempotency_key is not None:
        known = host.ledger.answers.get(caller.owner, x_idempotency_key)
        if known is not None and known.get("type") == "create_session":
            return json_answer(known)
    now = host.now()
    row = SessionRow(
        session_id=str(uuid.uuid4()),
        created_at=now,
        tags=body.tags,
        user_metadata=body.user_metadata,
        sdk_version=body.sdk_version,
        project_id=body.project_id or caller.project_id,
        display_name=body.display_name,
        owner=caller.owner,
        last_seen_at=now,
    )
    host.ledger.sessions.add(row)
    answer = {"session_id": row.session_id, "type": "create_session"}
    if x_idempotency_key is not None:
        host.ledger.answers.put(caller.owner, x_idempotency_key, answer, now)
    return json_answer(answer)


@router.post("/session_heartbeat", responses=told(Beat, 404, 410))
async def session_heartbeat(body: SessionHeartbeatRequest, request: Request) -> Response:
    """Take a sign of life; a finished session is gone."""
    host = host_of(request)
    host.session(body.session_id, caller_of(request).owner)
    host.ledger.sessions.touch(body.session_id, host.now())
    return json_answer({"type": "session_heartbeat"})


@router.post("/sessions/{session_id}/finish", responses=told(None, 404))
async def finish_session(session_id: str, body: FinishSessionRequest, request: Request) -> Response:
    """End a session: its models are unloaded, its samplers go on for a while."""
    host, owner = host_of(request), caller_of(request).owner
    row = host.session(session_id, owner, open_only=False)
    if row.finished_at is None:
        host.ledger.sessions.finish(session_id, body.model_dump(), host.now())
        for model in host.ledger.models.of_session(session_id):
            if model.state == "live":
                _unload(host, model)
        host.sweep()
    return json_answer({})


def _unload(host: Host, model: ModelRow) -> None:
    work = training_work.unload(host, host.shelf.find(model.base_model), model.model_id)
    prepare = partial(_given, work)
    host.runs.accept("unload_model", model.model_id, None, prepare, owner=model.owner)


def _given(work: Work, _: ModelRow) -> Work:
    return work


@router.put("/sessions/{session_id}/project", responses=told(None, 404))
async def move_session(session_id: str, body: MoveSessionRequest, request: Request) -> Response:
    """Move a session, with all that it made, into a project."""
    host, owner = host_of(request), caller_of(request).owner
    host.session(session_id, owner, open_only=False)
    host.ledger.sessions.assign_project(session_id, body.project_id)
    host.audit.session_moved(owner, session_id, body.project_id)
    return json_answer({})


@router.get("/sessions", responses=told(ListSessionsResponse))
async def list_sessions(
    request: Request,
    limit: PageNumber = 20,
    offset: PageNumber = 0,
    access_scope: _AccessScope = "owned",  # noqa: ARG001 - what may be seen is owned
) -> Response:
    """List sessions, newest first."""
    owner = caller_of(request).owner
    sessions = host_of(request).ledger.sessions.ids(owner, limit=limit, offset=offset)
    return record_answer(request, ListSessionsResponse(sessions=sessions))


@router.get("/sessions/{session_id}", responses=told(GetSessionResponse, 404))
async def get_session(
    session_id: str,
    request: Request,
    access_scope: _AccessScope = "owned",  # noqa: ARG001 - what may be seen is owned
) -> Response:
    """Tell what a session made."""
    host = host_of(request)
    row = host.session(session_id, caller_of(request).owner, open_only=False)
    ledger = host.ledger
    return record_answer(
        request,
        GetSessionResponse(
            training_run_ids=[model.model_id for model in ledger.models.of_session(session_id)],
            sampler_ids=[sampler.sampler_id for sampler in ledger.samplers.of_session(session_id)],
            user_metadata={key: str(value) for key, value in row.user_metadata.items()},
            display_name=row.display_name,
        ),
    )


@router.get("/sessions/{session_id}/trace_export", responses=told(TraceExport, 404))
async def trace_export(session_id: str, request: Request) -> Response:
    """Make a trace of what a session did, and link to it when it is there."""
    host = host_of(request)
    row = host.session(session_id, caller_of(request).owner, open_only=False)
    file_name = await host.traces.export(row)
    if file_name is None:
        return json_answer({"status": "pending"})
    link = host.downloads.trace_link(file_name)
    return json_answer({"status": "ready", "url": url_of(request, link)})

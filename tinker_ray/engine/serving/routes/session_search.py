"""The endpoint that searches sessions."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer
from tinker_ray.engine.serving.answer_schema import FoundSessions
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.session_schema import SearchSessionsRequest, SessionsOfUsers
from tinker_ray.engine.serving.session_status import is_searched, status_of
from tinker_ray.engine.store.row import DEFAULT_PROJECT

if TYPE_CHECKING:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.session_schema import SearchCursor
    from tinker_ray.engine.store.row import SessionRow

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@router.post("/sessions/search", responses=told(FoundSessions))
async def search_sessions(body: SearchSessionsRequest, request: Request) -> Response:
    """Search the sessions that the caller may see, newest first."""
    host, owner = host_of(request), caller_of(request).owner
    if isinstance(body.owner, SessionsOfUsers) and owner not in body.owner.owner_urns:
        return json_answer({"sessions": []})
    before = None if body.cursor is None else _place(body.cursor)
    rows = host.ledger.sessions.newest_first(owner, before=before)
    matching = ((row, status_of(host, row)) for row in rows if _matches(row, body))
    searched = (item for item in matching if is_searched(item[1], body.statuses))
    found = list(itertools.islice(searched, body.limit + 1))
    page = found[: body.limit]
    answer: dict[str, Any] = {"sessions": [_summary(host, row, status) for row, status in page]}
    if len(found) > body.limit:
        last = page[-1][0]
        created_at = _time(last).isoformat()
        answer["next_cursor"] = {
            "last_created_at": created_at,
            "last_session_id": last.session_id,
        }
    return json_answer(answer)


def _place(cursor: SearchCursor) -> tuple[int, str]:
    microseconds = (cursor.last_created_at - _EPOCH) // timedelta(microseconds=1)
    return microseconds, cursor.last_session_id


def _time(row: SessionRow) -> datetime:
    return _EPOCH + timedelta(microseconds=round(row.created_at * 1e6))


def _matches(row: SessionRow, body: SearchSessionsRequest) -> bool:
    if body.project_ids is not None and (row.project_id or DEFAULT_PROJECT) not in body.project_ids:
        return False
    if any(row.user_metadata.get(key) != value for key, value in body.user_metadata.items()):
        return False
    if body.session_id is None and body.display_name is None:
        return True
    if row.session_id == body.session_id:
        return True
    words = (body.display_name or "").lower().split()
    name = (row.display_name or "").lower()
    return body.display_name is not None and all(word in name for word in words)


def _summary(host: Host, row: SessionRow, status: dict[str, Any] | None) -> dict[str, Any]:
    models = host.ledger.models.of_session(row.session_id)
    checkpoints = [
        checkpoint
        for model in models
        for checkpoint in host.ledger.checkpoints.of_run(model.model_id, host.now())
    ]
    return {
        "session_id": row.session_id,
        "created_at": _time(row).isoformat(),
        "owner": row.owner,
        "project_id": row.project_id or DEFAULT_PROJECT,
        "status": status,
        "checkpoints_count": len(checkpoints),
        "display_name": row.display_name,
        "user_metadata": {key: str(value) for key, value in row.user_metadata.items()},
        "checkpoint_storage_bytes": sum(checkpoint.size_bytes for checkpoint in checkpoints),
    }

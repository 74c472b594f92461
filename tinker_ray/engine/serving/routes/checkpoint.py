"""Endpoints that change checkpoints, or hand out their files."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer, url_of
from tinker_ray.engine.serving.answer_schema import ExternalWeightsUrls
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import CheckpointTtlRequest
from tinker_ray.engine.serving.validate import checkpoint_ttl

if TYPE_CHECKING:
    from tinker_ray.engine.store.row import CheckpointRow

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_PATH = "/training_runs/{run_id}/checkpoints/{segment}/{name}"
_FIELD = "checkpoint_id"


def _own(request: Request, run_id: str, segment: str, name: str) -> CheckpointRow:
    path = f"tinker://{run_id}/{segment}/{name}"
    return host_of(request).checkpoints.own(path, caller_of(request).owner, field=_FIELD)


def _readable(request: Request, run_id: str, segment: str, name: str) -> CheckpointRow:
    path = f"tinker://{run_id}/{segment}/{name}"
    return host_of(request).checkpoints.resolve(path, {caller_of(request).owner}, field=_FIELD)


def _note(request: Request, action: str, row: CheckpointRow, **details: object) -> None:
    host_of(request).audit.checkpoint(action, caller_of(request).owner, row, **details)


@router.delete(_PATH, responses=told(None, 400, 404))
async def delete_checkpoint(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Delete a checkpoint and its files."""
    row = _own(request, run_id, segment, name)
    host_of(request).checkpoints.delete(row)
    _note(request, "deleted", row)
    return json_answer({})


@router.post(f"{_PATH}/publish", responses=told(None, 400, 404))
async def publish_checkpoint(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Let everybody read a checkpoint; one that is public stays so."""
    row = _own(request, run_id, segment, name)
    if not row.public:
        host_of(request).ledger.checkpoints.set_public(row.tinker_path, public=True)
        _note(request, "published", row)
    return json_answer({})


@router.delete(f"{_PATH}/publish", responses=told(None, 400, 404))
async def unpublish_checkpoint(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Let only the owner read a checkpoint; one that is private stays so."""
    row = _own(request, run_id, segment, name)
    if row.public:
        host_of(request).ledger.checkpoints.set_public(row.tinker_path, public=False)
        _note(request, "unpublished", row)
    return json_answer({})


@router.put(f"{_PATH}/ttl", responses=told(None, 400, 404))
async def set_checkpoint_ttl(
    run_id: str, segment: str, name: str, body: CheckpointTtlRequest, request: Request
) -> Response:
    """Let a checkpoint expire so many seconds from now, or never."""
    ttl_s = checkpoint_ttl(body.ttl_seconds)
    row = _own(request, run_id, segment, name)
    host_of(request).checkpoints.set_ttl(row, ttl_s)
    _note(request, "ttl_set", row, ttl_seconds=ttl_s)
    return json_answer({})


@router.get(f"{_PATH}/archive", responses=told(None, 400, 404, success=302), status_code=302)
async def archive_url(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Redirect to the archive of a checkpoint, as ``peft`` loads it."""
    row = _readable(request, run_id, segment, name)
    if row.checkpoint_type == "external":
        message = "was exported file by file: ask for external_weights_urls"
        raise RequestRejected(message, field=_FIELD)
    link = host_of(request).downloads.archive_link(row)
    _note(request, "read", row, purpose="archive")
    expires = email.utils.formatdate(link.expires_at, usegmt=True)
    headers = {"Location": url_of(request, link), "Expires": expires}
    return Response(status_code=302, headers=headers)


@router.get(f"{_PATH}/external_weights_urls", responses=told(ExternalWeightsUrls, 400, 404))
async def external_weights_urls(run_id: str, segment: str, name: str, request: Request) -> Response:
    """Link to every file of a checkpoint that was exported."""
    row = _readable(request, run_id, segment, name)
    if row.checkpoint_type != "external":
        message = "was not exported: only external_weights/… have files to download one by one"
        raise RequestRejected(message, field=_FIELD)
    links = host_of(request).downloads.file_links(row)
    _note(request, "read", row, purpose="external_weights_urls")
    expires_at = min(link.expires_at for link in links.values())
    return json_answer(
        {
            "urls": {file: url_of(request, link) for file, link in links.items()},
            "expires": datetime.fromtimestamp(expires_at, tz=UTC).isoformat(),
        }
    )

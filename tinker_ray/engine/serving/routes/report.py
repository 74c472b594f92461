"""Endpoints that report what was done and used."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from tinker_ray.engine.serving.answer import caller_of, host_of, json_answer
from tinker_ray.engine.serving.answer_schema import AuditLog, BillingUsage, CheckpointStorage
from tinker_ray.engine.serving.audit import CHECKPOINT, ORGANIZATION, PROJECT
from tinker_ray.engine.serving.openapi import told
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.serving.route import PREFIX, JsonRoute
from tinker_ray.engine.serving.schema import Day, Moment
from tinker_ray.engine.serving.usage_report import checkpoint_storage_of, usage_events

if TYPE_CHECKING:
    from tinker_ray.engine.store.row import AuditRow

router = APIRouter(prefix=PREFIX, route_class=JsonRoute)

_RESOURCES = {
    "checkpoints": CHECKPOINT,
    "projects": PROJECT,
    "teams": "team",
    "organizations": ORGANIZATION,
}
_LONGEST = timedelta(days=14)


@router.get("/audit", responses=told(AuditLog))
async def audit_log(
    request: Request,
    event_type: Literal["all", "checkpoints", "projects", "teams", "organizations"] = "all",
    day: Day | None = None,
) -> Response:
    """Tell what was done in a day of UTC, by default today."""
    host = host_of(request)
    asked = day or datetime.fromtimestamp(host.now(), tz=UTC).date()
    start = datetime.combine(asked, time(), tzinfo=UTC).timestamp()
    rows = host.ledger.audit.entries(
        caller_of(request).owner, start, start + 24 * 3600, resource=_RESOURCES.get(event_type)
    )
    return json_answer({"entries": [_entry(row) for row in rows]})


def _entry(row: AuditRow) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(row.at, tz=UTC).isoformat(),
        "event": row.event,
        "event_details": row.details,
    }
    kept = ("model_id", "tinker_path", "purpose")
    return entry | {key: row.details[key] for key in kept if key in row.details}


@router.get("/billing/usage/events", responses=told(BillingUsage, 400))
async def billing_usage(
    request: Request,
    starting_on: Annotated[Moment, Query()],
    ending_before: Annotated[Moment, Query()],
) -> Response:
    """Tell what the caller used, by the hour; nothing here costs anything."""
    host = host_of(request)
    for name, moment in (("starting_on", starting_on), ("ending_before", ending_before)):
        if moment != moment.replace(minute=0, second=0, microsecond=0):
            raise RequestRejected(f"is not on the hour: {moment.isoformat()}", field=name)
    if not starting_on < ending_before <= starting_on + _LONGEST:
        message = f"must be after starting_on, by up to {_LONGEST.days} days"
        raise RequestRejected(message, field="ending_before")
    if starting_on.timestamp() > host.now():
        raise RequestRejected("is in the future", field="starting_on")
    bounds = (starting_on.timestamp(), ending_before.timestamp())
    return json_answer(usage_events(host, caller_of(request).owner, *bounds))


@router.get("/billing/usage/checkpoints/current", responses=told(CheckpointStorage))
async def checkpoint_storage(request: Request, project_id: str | None = None) -> Response:
    """Tell what the caller's checkpoints take of the disk, by project."""
    return json_answer(
        checkpoint_storage_of(host_of(request), caller_of(request).owner, project_id)
    )

"""What an owner used, as the reports tell it. Nothing here has a price, so costs are left out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tinker_ray.engine.store.row import DEFAULT_PROJECT
from tinker_ray.engine.store.table.usage import HOUR_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray.engine.host import Host
    from tinker_ray.engine.store.row import UsageType
    from tinker_ray.engine.store.table.usage import UsageRow

_GIGABYTE = 1_000_000_000
_KINDS: dict[UsageType, dict[str, Any]] = {
    "training": {"type": "training"},
    "sampling_prefill": {"type": "sampling_prefill", "cached": False},
    "sampling_prefill_cached": {"type": "sampling_prefill", "cached": True},
    "sampling_sample": {"type": "sampling_sample"},
    "checkpoint": {"type": "checkpoint"},
}


def usage_events(host: Host, owner: str, start: float, end: float) -> dict[str, Any]:
    """Tell what was used in a time, whose ends are full hours."""
    rows = host.ledger.usage.hours(owner, start, end)
    sessions = {row.session_id for row in rows if row.session_id}
    known = {session_id: host.ledger.sessions.get(session_id) for session_id in sessions}
    data = [_event(owner, row, known) for row in rows]
    data += _storage_events(host, owner, start, end)
    data.sort(key=lambda event: str(event["bucket_start"]))
    return {
        "data": data,
        "sessions": {
            session_id: {
                "user_metadata": {key: str(value) for key, value in row.user_metadata.items()}
            }
            for session_id, row in known.items()
            if row is not None
        },
    }


def _event(owner: str, row: UsageRow, sessions: dict[str, Any]) -> dict[str, Any]:
    session = sessions.get(row.session_id)
    quantity = "count" if row.type == "checkpoint" else "token_count"
    return {
        **_bucket(row.bucket),
        "base_model": row.base_model,
        "user_id": owner,
        "session_id": row.session_id or None,
        "project_id": None if session is None else session.project_id or DEFAULT_PROJECT,
        "event_info": {**_KINDS[row.type], quantity: row.quantity},
    }


def _storage_events(host: Host, owner: str, start: float, end: float) -> Iterator[dict[str, Any]]:
    now = host.now()
    byte_seconds: defaultdict[tuple[int, str], float] = defaultdict(float)
    for share in host.ledger.checkpoints.shares(owner, start, end):
        run = host.ledger.models.get(share.run_id)
        base_model = "" if run is None else run.base_model
        first, last = max(share.since, start), min(share.until or now, end, now)
        bucket = int(first) // HOUR_S * HOUR_S
        while bucket < last:
            overlap_s = min(last, bucket + HOUR_S) - max(first, bucket)
            byte_seconds[bucket, base_model] += share.size_bytes * max(overlap_s, 0.0)
            bucket += HOUR_S
    for (bucket, base_model), amount in sorted(byte_seconds.items()):
        yield {
            **_bucket(bucket),
            "base_model": base_model or None,
            "user_id": owner,
            "event_info": {
                "type": "storage",
                "free": True,
                "gigabyte_hours": amount / _GIGABYTE / HOUR_S,
            },
        }


def _bucket(start: int) -> dict[str, str]:
    return {
        "bucket_start": datetime.fromtimestamp(start, tz=UTC).isoformat(),
        "bucket_end": datetime.fromtimestamp(start + HOUR_S, tz=UTC).isoformat(),
    }


def checkpoint_storage_of(host: Host, owner: str, project_id: str | None) -> dict[str, Any]:
    """Tell what checkpoints take of the disk now, of one project if one is given."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    projects: dict[str, str] = {}
    count = host.ledger.checkpoints.count(owner, host.now())
    for row in host.ledger.checkpoints.page(owner, host.now(), limit=count, offset=0):
        if row.run_id not in projects:
            projects[row.run_id] = _project(host, row.run_id)
        sizes[projects[row.run_id]].append(row.size_bytes)
    return {
        "data": [
            {
                "project_id": project,
                "org_user_urn": owner,
                "checkpoint_count": len(sizes[project]),
                "size_bytes": sum(sizes[project]),
                "size_gigabytes": sum(sizes[project]) / _GIGABYTE,
            }
            for project in sorted(sizes)
            if project_id in {None, project}
        ]
    }


def _project(host: Host, run_id: str) -> str:
    run = host.ledger.models.get(run_id)
    if run is None:
        return DEFAULT_PROJECT
    session = host.ledger.sessions.get(run.session_id)
    return run.project_id or (session and session.project_id) or DEFAULT_PROJECT

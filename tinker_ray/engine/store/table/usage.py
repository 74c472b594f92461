"""What was done and used: single operations for traces, sums by the hour for reports.

Writes are deferred: a process that is killed loses up to a second of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import sqlite3

    from tinker_ray.engine.store.database import Database
    from tinker_ray.engine.store.row import Activity, UsageType

HOUR_S = 3600
_MAX_ACTIVITIES = 200_000
_PRUNED_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A sum over one hour, which starts at ``bucket``."""

    bucket: int
    session_id: str
    base_model: str
    type: UsageType
    quantity: int


class UsageTable:
    """The tables ``activity`` and ``usage``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._num_recorded = 0

    def record(self, activity: Activity) -> None:
        """Record an operation that ended; the oldest of very many are forgotten."""
        self._database.defer(
            "INSERT INTO activity (session_id, track, kind, request_id, accepted_at, started_at, "
            "ended_at, ok, tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            activity.session_id,
            activity.track,
            activity.kind,
            activity.request_id,
            activity.accepted_at,
            activity.started_at,
            activity.ended_at,
            int(activity.ok),
            sum(activity.usage.values()),
        )
        bucket = int(activity.ended_at) // HOUR_S * HOUR_S
        for usage_type, quantity in activity.usage.items():
            self._database.defer(
                "INSERT INTO usage (bucket, owner, session_id, base_model, type, quantity) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (bucket, owner, session_id, base_model, "
                "type) DO UPDATE SET quantity = quantity + excluded.quantity",
                bucket,
                activity.owner,
                activity.session_id,
                activity.base_model,
                usage_type,
                quantity,
            )
        self._num_recorded += 1
        if self._num_recorded % _PRUNED_EVERY == 0:
            self._database.defer(
                "DELETE FROM activity WHERE activity_id <= "
                "(SELECT max(activity_id) FROM activity) - ?",
                _MAX_ACTIVITIES,
            )

    def hours(self, owner: str, start: float, end: float) -> list[UsageRow]:
        """List an owner's sums of the hours that start in a time, by hour, the largest first."""
        self._database.commit_deferred()
        query = (
            "SELECT bucket, session_id, base_model, type, quantity FROM usage "
            "WHERE owner = ? AND bucket >= ? AND bucket < ? ORDER BY bucket, quantity DESC"
        )
        rows = self._database.all(query, owner, start, end)
        return [
            UsageRow(
                bucket=row["bucket"],
                session_id=row["session_id"],
                base_model=row["base_model"],
                type=cast("UsageType", row["type"]),
                quantity=row["quantity"],
            )
            for row in rows
        ]

    def of_session(self, session_id: str) -> list[sqlite3.Row]:
        """List the operations of a session, in the order in which they ended."""
        self._database.commit_deferred()
        query = "SELECT * FROM activity WHERE session_id = ? ORDER BY activity_id"
        return list(self._database.all(query, session_id))

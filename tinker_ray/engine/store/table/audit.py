"""Who did what to which resource."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinker_ray.engine.store.row import AuditRow

if TYPE_CHECKING:
    from tinker_ray.engine.store.database import Database


class AuditTable:
    """The table ``audit``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, row: AuditRow) -> None:
        """Record that something was done."""
        self._database.write(
            "INSERT INTO audit (at, owner, resource, event, details) VALUES (?, ?, ?, ?, ?)",
            row.at,
            row.owner,
            row.resource,
            row.event,
            json.dumps(row.details),
        )

    def entries(
        self, owner: str, start: float, end: float, *, resource: str | None = None
    ) -> list[AuditRow]:
        """List what an owner did in a time, or was done to what they own; oldest first."""
        query = (
            "SELECT at, owner, resource, event, details FROM audit WHERE owner = ? AND at >= ? "
            "AND at < ? AND (? IS NULL OR resource = ?) ORDER BY at, entry_id"
        )
        rows = self._database.all(query, owner, start, end, resource, resource)
        return [
            AuditRow(
                at=row["at"],
                owner=row["owner"],
                resource=row["resource"],
                event=row["event"],
                details=json.loads(row["details"]),
            )
            for row in rows
        ]

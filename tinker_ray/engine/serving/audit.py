"""The audit log: what was done to checkpoints, projects and keys, and by whom.

Knows nothing of HTTP. An entry is in the log of whoever owns the resource.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.engine.store.row import AuditRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.engine.store.row import CheckpointRow
    from tinker_ray.engine.store.table.audit import AuditTable

CHECKPOINT = "checkpoint"
PROJECT = "project"
ORGANIZATION = "organization"


class Audit:
    """Writes the audit log.

    Args:
        table: Where it is.
        now: The wall clock.
    """

    def __init__(self, table: AuditTable, now: Callable[[], float]) -> None:
        self._table = table
        self._now = now

    def checkpoint(self, action: str, actor: str, row: CheckpointRow, **details: object) -> None:
        """Record what was done to a checkpoint, such as ``published``."""
        about = {"model_id": row.run_id, "tinker_path": row.tinker_path, **details}
        self._record(CHECKPOINT, action, row.owner, actor, about)

    def session_moved(self, actor: str, session_id: str, project_id: str) -> None:
        """Record that a session was moved into a project."""
        about = {"session_id": session_id, "project_id": project_id}
        self._record(PROJECT, "session_assigned", actor, actor, about)

    def key_deleted(self, actor: str, key_id: int) -> None:
        """Record that an API key was revoked."""
        self._record(ORGANIZATION, "api_key_deleted", actor, actor, {"key_id": key_id})

    def _record(
        self, resource: str, action: str, owner: str, actor: str, details: dict[str, Any]
    ) -> None:
        event = f"{resource}_{action}"
        row = AuditRow(self._now(), owner, resource, event, {"actor": actor, **details})
        self._table.record(row)

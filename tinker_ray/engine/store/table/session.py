"""Sessions of clients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tinker_ray.engine.store.row import SessionRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from tinker_ray.engine.store.database import Database

_PAGE_ROWS = 256
_MICROSECONDS = "CAST(round(created_at * 1000000) AS INTEGER)"


class SessionTable:
    """The table ``sessions``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: SessionRow) -> None:
        """Record a new session."""
        self._database.write(
            "INSERT INTO sessions (session_id, created_at, tags, user_metadata, sdk_version, "
            "project_id, display_name, last_seen_at, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.session_id,
            row.created_at,
            json.dumps(row.tags),
            json.dumps(row.user_metadata),
            row.sdk_version,
            row.project_id,
            row.display_name,
            row.last_seen_at,
            row.owner,
        )

    def get(self, session_id: str) -> SessionRow | None:
        """Look a session up."""
        row = self._database.first("SELECT * FROM sessions WHERE session_id = ?", session_id)
        return None if row is None else _session(row)

    def touch(self, session_id: str, now: float) -> None:
        """Record a sign of life."""
        self._database.write(
            "UPDATE sessions SET last_seen_at = ? WHERE session_id = ?", now, session_id
        )

    def finish(self, session_id: str, finish: dict[str, Any], now: float) -> None:
        """Record the end of a session; the first reason stays."""
        self._database.write(
            "UPDATE sessions SET finished_at = ?, finish = ? "
            "WHERE session_id = ? AND finished_at IS NULL",
            now,
            json.dumps(finish),
            session_id,
        )

    def assign_project(self, session_id: str, project_id: str) -> None:
        """Move a session, with all that it made, into a project."""
        self._database.write(
            "UPDATE sessions SET project_id = ? WHERE session_id = ?", project_id, session_id
        )

    def ids(self, owner: str, *, limit: int, offset: int) -> list[str]:
        """List the sessions of an owner, newest first."""
        query = (
            "SELECT session_id FROM sessions WHERE owner = ? ORDER BY rowid DESC LIMIT ? OFFSET ?"
        )
        return [row[0] for row in self._database.all(query, owner, limit, offset)]

    def newest_first(
        self, owner: str, *, before: tuple[int, str] | None = None
    ) -> Iterator[SessionRow]:
        """Go through the sessions of an owner by time and id, both falling.

        Args:
            owner: Whose.
            before: The time in microseconds and the id of a session to start after.
        """
        while True:
            bound, values = "", [owner]
            if before is not None:
                bound = f"AND ({_MICROSECONDS}, session_id) < (?, ?) "
                values += [*before]  # type: ignore[list-item]
            query = (
                f"SELECT *, {_MICROSECONDS} AS at FROM sessions WHERE owner = ? {bound}"  # noqa: S608
                f"ORDER BY at DESC, session_id DESC LIMIT {_PAGE_ROWS}"
            )
            rows = self._database.all(query, *values)
            for row in rows:
                yield _session(row)
            if len(rows) < _PAGE_ROWS:
                return
            before = rows[-1]["at"], rows[-1]["session_id"]


def _session(row: sqlite3.Row) -> SessionRow:
    return SessionRow(
        session_id=row["session_id"],
        created_at=row["created_at"],
        tags=json.loads(row["tags"]),
        user_metadata=json.loads(row["user_metadata"]),
        sdk_version=row["sdk_version"],
        project_id=row["project_id"],
        display_name=row["display_name"],
        finished_at=row["finished_at"],
        owner=row["owner"],
        last_seen_at=row["last_seen_at"],
        finish=None if row["finish"] is None else json.loads(row["finish"]),
    )

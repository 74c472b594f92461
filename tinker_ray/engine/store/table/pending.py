"""Samples that were promised and whose end nobody has acknowledged.

Kept only for clients that learn of completions from the poll of their sampling session: after the
death of a process it tells them what died with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinker_ray.engine.store.database import Database


class PendingTable:
    """The table ``pending_samples``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, request_id: str, sampler_id: str, clone: int) -> None:
        """Record a promised sample."""
        self._database.write(
            "INSERT INTO pending_samples (request_id, sampler_id, clone) VALUES (?, ?, ?)",
            request_id,
            sampler_id,
            clone,
        )

    def of(self, sampler_id: str, clone: int) -> list[str]:
        """List the promised samples of one client of a sampling session, oldest first."""
        query = (
            "SELECT request_id FROM pending_samples WHERE sampler_id = ? AND clone = ? "
            "ORDER BY rowid"
        )
        return [row[0] for row in self._database.all(query, sampler_id, clone)]

    def remove(self, request_ids: Iterable[str]) -> None:
        """Forget samples whose end was acknowledged."""
        statement = "DELETE FROM pending_samples WHERE request_id = ?"
        statements = [(statement, (request_id,)) for request_id in request_ids]
        if statements:
            self._database.transact([*statements])

    def sweep(self, *, finished_before: float, seen_before: float) -> None:
        """Forget the samples of sessions that are over: nobody asks any more."""
        self._database.write(
            "DELETE FROM pending_samples WHERE sampler_id IN (SELECT sampler_id FROM samplers "
            "JOIN sessions USING (session_id) WHERE finished_at < ? OR last_seen_at < ?)",
            finished_before,
            seen_before,
        )

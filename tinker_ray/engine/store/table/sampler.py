"""Sampling sessions, and the newest weights that each run published for its inflight ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from tinker_ray.engine.store.row import SamplerRow

if TYPE_CHECKING:
    import sqlite3

    from tinker_ray.engine.store.database import Database, Statement
    from tinker_ray.engine.store.row import SamplerKind

_INSERTED = (
    "INSERT INTO samplers (sampler_id, session_id, base_model, model_path, directory, ephemeral, "
    "created_at, num_joined, owner, kind, run_id) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)"
)
_OVER_OWN = (
    "SELECT sampler_id, directory FROM samplers JOIN sessions USING (session_id) "
    "WHERE swept = 0 AND directory IS NOT NULL AND (finished_at < ? OR last_seen_at < ?)"
)
_OVER_SHARED = (
    "SELECT model_id, directory FROM inflight JOIN models USING (model_id) "
    "JOIN sessions USING (session_id) WHERE finished_at < ? OR last_seen_at < ?"
)


class SamplerTable:
    """The tables ``samplers`` and ``inflight``.

    Args:
        database: Where they are.
        folder: The data folder, which directories are named from, so that it can be moved.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def add(self, row: SamplerRow) -> None:
        """Record a new sampling session."""
        self._database.transact([self._insertion(row)])

    def add_inflight(self, row: SamplerRow, directory: Path) -> Path | None:
        """Record a new inflight session with what its run's sessions sample from now on.

        Returns:
            What they sampled from before.
        """
        before = self.inflight_directory(row.run_id or "")
        published: Statement = (
            "INSERT OR REPLACE INTO inflight (model_id, directory) VALUES (?, ?)",
            (row.run_id, self._relative(directory)),
        )
        self._database.transact([self._insertion(row), published])
        return before

    def _insertion(self, row: SamplerRow) -> Statement:
        values = (
            row.sampler_id,
            row.session_id,
            row.base_model,
            row.model_path,
            None if row.directory is None else self._relative(row.directory),
            int(row.ephemeral),
            row.created_at,
            row.owner,
            row.kind,
            row.run_id,
        )
        return _INSERTED, values

    def get(self, sampler_id: str) -> SamplerRow | None:
        """Look a sampling session up."""
        row = self._database.first("SELECT * FROM samplers WHERE sampler_id = ?", sampler_id)
        return None if row is None else self._sampler(row)

    def inflight_directory(self, model_id: str) -> Path | None:
        """Name the weights that the inflight sessions of a run sample from."""
        row = self._database.first("SELECT directory FROM inflight WHERE model_id = ?", model_id)
        return None if row is None else self._folder / row["directory"]

    def join(self, sampler_id: str) -> int | None:
        """Count one more client of a sampling session; None if there is no such session."""
        row = self._database.first(
            "UPDATE samplers SET num_joined = num_joined + 1 WHERE sampler_id = ? "
            "RETURNING num_joined",
            sampler_id,
        )
        return None if row is None else int(row[0])

    def of_session(self, session_id: str) -> list[SamplerRow]:
        """List the sampling sessions of a session, oldest first."""
        query = "SELECT * FROM samplers WHERE session_id = ? ORDER BY rowid"
        return [self._sampler(row) for row in self._database.all(query, session_id)]

    def uses(self, directory: Path) -> bool:
        """Whether sampling sessions have their weights in a directory."""
        name = self._relative(directory)
        query = (
            "SELECT 1 FROM samplers WHERE directory = ? AND swept = 0 "
            "UNION SELECT 1 FROM inflight WHERE directory = ? LIMIT 1"
        )
        return self._database.first(query, name, name) is not None

    def directories(self) -> set[Path]:
        """Name every directory that sampling sessions have their weights in."""
        query = (
            "SELECT directory FROM samplers WHERE directory IS NOT NULL AND swept = 0 "
            "UNION SELECT directory FROM inflight"
        )
        return {self._folder / row["directory"] for row in self._database.all(query)}

    def sweep(self, *, finished_before: float, seen_before: float) -> set[Path]:
        """Give up the weights of sessions that are over; return their directories."""
        own = self._database.all(_OVER_OWN, finished_before, seen_before)
        shared = self._database.all(_OVER_SHARED, finished_before, seen_before)
        swept = "UPDATE samplers SET swept = 1 WHERE sampler_id = ?"
        forgotten = "DELETE FROM inflight WHERE model_id = ?"
        if own or shared:
            self._database.transact(
                [
                    *((swept, (row["sampler_id"],)) for row in own),
                    *((forgotten, (row["model_id"],)) for row in shared),
                ]
            )
        return {self._folder / row["directory"] for row in (*own, *shared)}

    def _relative(self, directory: Path) -> str:
        return str(directory.relative_to(self._folder))

    def _sampler(self, row: sqlite3.Row) -> SamplerRow:
        return SamplerRow(
            sampler_id=row["sampler_id"],
            session_id=row["session_id"],
            base_model=row["base_model"],
            model_path=row["model_path"],
            directory=None if row["directory"] is None else self._folder / row["directory"],
            ephemeral=bool(row["ephemeral"]),
            created_at=row["created_at"],
            owner=row["owner"],
            kind=cast("SamplerKind", row["kind"]),
            run_id=row["run_id"],
        )

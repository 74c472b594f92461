"""What has to outlive the engine's process: sessions, models, samplers and checkpoints.

The promises are in :mod:`tinker_ray.engine.store.journal`. Knows nothing of HTTP, of tensors or
of event loops; safe to use from any thread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tinker_ray.engine.store import journal
from tinker_ray.engine.store.database import Database
from tinker_ray.engine.store.journal import Journal
from tinker_ray.engine.store.row import CheckpointRow, ModelRow, ModelState, SamplerRow, SessionRow
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    import sqlite3

    from tinker_ray.types import CheckpointType

_SCHEMA = """
CREATE TABLE sessions (session_id TEXT PRIMARY KEY, created_at REAL, tags TEXT, user_metadata TEXT,
    sdk_version TEXT, project_id TEXT, display_name TEXT, last_seen_at REAL,
    finished_at REAL, finish TEXT);
CREATE TABLE models (model_id TEXT PRIMARY KEY, session_id TEXT, base_model TEXT, lora TEXT,
    user_metadata TEXT, state TEXT, created_at REAL, last_request_at REAL);
CREATE INDEX models_of_session ON models (session_id);
CREATE TABLE samplers (sampler_id TEXT PRIMARY KEY, session_id TEXT, base_model TEXT,
    model_path TEXT, directory TEXT, ephemeral INTEGER, created_at REAL,
    num_joined INTEGER);
CREATE INDEX samplers_of_session ON samplers (session_id);
CREATE INDEX samplers_of_directory ON samplers (directory);
CREATE TABLE checkpoints (tinker_path TEXT PRIMARY KEY, run_id TEXT, checkpoint_id TEXT,
    checkpoint_type TEXT, directory TEXT, size_bytes INTEGER, created_at REAL, user_metadata TEXT,
    expires_at REAL);
CREATE INDEX checkpoints_of_run ON checkpoints (run_id);
"""


class Ledger:
    """The rows of one data folder.

    Args:
        folder: Where the file ``ledger.sqlite`` and the folder ``outcomes`` are, or are made.
        max_outcome_bytes: Outcomes of promises are kept up to this sum, the oldest going first.

    Attributes:
        journal: The promises.

    Raises:
        EngineError: The file is damaged, or of another version of the engine.
    """

    def __init__(self, folder: Path, *, max_outcome_bytes: int = 512 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._database = Database(folder / "ledger.sqlite", _SCHEMA + journal.SCHEMA)
        self.journal = Journal(self._database, folder / "outcomes", max_bytes=max_outcome_bytes)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def recover(self) -> None:
        """Record what died with the process before this one: live models and pending promises."""
        self._database.write("UPDATE models SET state = 'lost' WHERE state = 'live'")
        self.journal.recover()

    def add_session(self, row: SessionRow) -> None:
        """Record a new session."""
        self._database.write(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            row.session_id,
            row.created_at,
            json.dumps(row.tags),
            json.dumps(row.user_metadata),
            row.sdk_version,
            row.project_id,
            row.display_name,
            row.created_at,
        )

    def session(self, session_id: str) -> SessionRow | None:
        """Look a session up."""
        row = self._database.first("SELECT * FROM sessions WHERE session_id = ?", session_id)
        if row is None:
            return None
        return SessionRow(
            session_id=row["session_id"],
            created_at=row["created_at"],
            tags=json.loads(row["tags"]),
            user_metadata=json.loads(row["user_metadata"]),
            sdk_version=row["sdk_version"],
            project_id=row["project_id"],
            display_name=row["display_name"],
            finished_at=row["finished_at"],
        )

    def touch_session(self, session_id: str, now: float) -> None:
        """Record a sign of life."""
        self._database.write(
            "UPDATE sessions SET last_seen_at = ? WHERE session_id = ?", now, session_id
        )

    def finish_session(self, session_id: str, finish: dict[str, Any], now: float) -> None:
        """Record the end of a session; the first reason stays."""
        self._database.write(
            "UPDATE sessions SET finished_at = ?, finish = ? "
            "WHERE session_id = ? AND finished_at IS NULL",
            now,
            json.dumps(finish),
            session_id,
        )

    def session_ids(self, *, limit: int, offset: int) -> list[str]:
        """List sessions, newest first."""
        query = "SELECT session_id FROM sessions ORDER BY rowid DESC LIMIT ? OFFSET ?"
        return [row[0] for row in self._database.all(query, limit, offset)]

    def add_model(self, row: ModelRow) -> None:
        """Record a new model."""
        self._database.write(
            "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row.model_id,
            row.session_id,
            row.base_model,
            row.lora.model_dump_json(),
            json.dumps(row.user_metadata),
            row.state,
            row.created_at,
            row.last_request_at,
        )

    def model(self, model_id: str) -> ModelRow | None:
        """Look a model up."""
        row = self._database.first("SELECT * FROM models WHERE model_id = ?", model_id)
        return None if row is None else _model(row)

    def set_model_state(self, model_id: str, state: ModelState) -> None:
        """Record what became of a model's live weights."""
        self._database.write("UPDATE models SET state = ? WHERE model_id = ?", state, model_id)

    def touch_model(self, model_id: str, now: float) -> None:
        """Record the time of a model's last request."""
        self._database.write(
            "UPDATE models SET last_request_at = ? WHERE model_id = ?", now, model_id
        )

    def models(self, *, limit: int, offset: int) -> list[ModelRow]:
        """List models, newest first."""
        query = "SELECT * FROM models ORDER BY rowid DESC LIMIT ? OFFSET ?"
        return [_model(row) for row in self._database.all(query, limit, offset)]

    def num_models(self) -> int:
        """Count all models."""
        return self._database.number("SELECT count(*) FROM models")

    def session_models(self, session_id: str) -> list[ModelRow]:
        """List the models of a session, oldest first."""
        query = "SELECT * FROM models WHERE session_id = ? ORDER BY rowid"
        return [_model(row) for row in self._database.all(query, session_id)]

    def add_sampler(self, row: SamplerRow) -> None:
        """Record a new sampling session."""
        self._database.write(
            "INSERT INTO samplers VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            row.sampler_id,
            row.session_id,
            row.base_model,
            row.model_path,
            None if row.directory is None else self._relative(row.directory),
            int(row.ephemeral),
            row.created_at,
        )

    def sampler(self, sampler_id: str) -> SamplerRow | None:
        """Look a sampling session up."""
        row = self._database.first("SELECT * FROM samplers WHERE sampler_id = ?", sampler_id)
        return None if row is None else self._sampler(row)

    def join_sampler(self, sampler_id: str) -> int | None:
        """Count one more client of a sampling session; None if there is no such session."""
        row = self._database.first(
            "UPDATE samplers SET num_joined = num_joined + 1 WHERE sampler_id = ? "
            "RETURNING num_joined",
            sampler_id,
        )
        return None if row is None else int(row[0])

    def session_samplers(self, session_id: str) -> list[SamplerRow]:
        """List the sampling sessions of a session, oldest first."""
        query = "SELECT * FROM samplers WHERE session_id = ? ORDER BY rowid"
        return [self._sampler(row) for row in self._database.all(query, session_id)]

    def ended_snapshots(self, *, finished_before: float, seen_before: float) -> list[Path]:
        """List the ephemeral weights of sessions that are over."""
        query = (
            "SELECT directory FROM samplers JOIN sessions USING (session_id) "
            "WHERE ephemeral = 1 AND (finished_at < ? OR last_seen_at < ?)"
        )
        rows = self._database.all(query, finished_before, seen_before)
        return [self._folder / row["directory"] for row in rows]

    def is_sampled(self, directory: Path) -> bool:
        """Whether a sampling session has its weights in a directory."""
        query = "SELECT 1 FROM samplers WHERE directory = ? LIMIT 1"
        return self._database.first(query, self._relative(directory)) is not None

    def put_checkpoint(self, row: CheckpointRow) -> None:
        """Record a checkpoint in place of the one of the same path, if there is one."""
        self._database.write(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.tinker_path,
            row.run_id,
            row.checkpoint_id,
            row.checkpoint_type,
            self._relative(row.directory),
            row.size_bytes,
            row.created_at,
            json.dumps(row.user_metadata),
            row.expires_at,
        )

    def checkpoint(self, tinker_path: str) -> CheckpointRow | None:
        """Look a checkpoint up."""
        row = self._database.first("SELECT * FROM checkpoints WHERE tinker_path = ?", tinker_path)
        return None if row is None else self._checkpoint(row)

    def run_checkpoints(self, run_id: str) -> list[CheckpointRow]:
        """List the checkpoints of a training run, newest first."""
        query = "SELECT * FROM checkpoints WHERE run_id = ? ORDER BY rowid DESC"
        return [self._checkpoint(row) for row in self._database.all(query, run_id)]

    def checkpoints(self, *, limit: int, offset: int) -> list[CheckpointRow]:
        """List all checkpoints, newest first."""
        query = "SELECT * FROM checkpoints ORDER BY rowid DESC LIMIT ? OFFSET ?"
        return [self._checkpoint(row) for row in self._database.all(query, limit, offset)]

    def num_checkpoints(self) -> int:
        """Count all checkpoints."""
        return self._database.number("SELECT count(*) FROM checkpoints")

    def delete_checkpoint(self, tinker_path: str) -> None:
        """Forget a checkpoint."""
        self._database.write("DELETE FROM checkpoints WHERE tinker_path = ?", tinker_path)

    def expired_checkpoints(self, now: float) -> list[CheckpointRow]:
        """List the checkpoints whose time to live is over."""
        query = "SELECT * FROM checkpoints WHERE expires_at <= ?"
        return [self._checkpoint(row) for row in self._database.all(query, now)]

    def _relative(self, directory: Path) -> str:
        """Name a folder so that the whole data folder can be moved."""
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
        )

    def _checkpoint(self, row: sqlite3.Row) -> CheckpointRow:
        return CheckpointRow(
            tinker_path=row["tinker_path"],
            run_id=row["run_id"],
            checkpoint_id=row["checkpoint_id"],
            checkpoint_type=cast("CheckpointType", row["checkpoint_type"]),
            directory=self._folder / row["directory"],
            size_bytes=row["size_bytes"],
            created_at=row["created_at"],
            user_metadata=json.loads(row["user_metadata"]),
            expires_at=row["expires_at"],
        )


def _model(row: sqlite3.Row) -> ModelRow:
    return ModelRow(
        model_id=row["model_id"],
        session_id=row["session_id"],
        base_model=row["base_model"],
        lora=LoraConfig.model_validate_json(row["lora"]),
        user_metadata=json.loads(row["user_metadata"]),
        state=cast("ModelState", row["state"]),
        created_at=row["created_at"],
        last_request_at=row["last_request_at"],
    )

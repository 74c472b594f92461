"""Models in training, which are training runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from tinker_ray.engine.store.row import ModelRow
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    import sqlite3

    from tinker_ray.engine.store.database import Database
    from tinker_ray.engine.store.row import ModelState

_PROJECT = "coalesce(models.project_id, sessions.project_id)"
_WITH_SESSION = "models LEFT JOIN sessions USING (session_id)"


class ModelTable:
    """The table ``models``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recover(self) -> None:
        """Record that no process holds live weights any more."""
        self._database.write("UPDATE models SET state = 'lost' WHERE state = 'live'")

    def add(self, row: ModelRow) -> None:
        """Record a new model."""
        self._database.write(
            "INSERT INTO models (model_id, session_id, base_model, lora, user_metadata, state, "
            "created_at, last_request_at, owner, project_id, optimizer) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.model_id,
            row.session_id,
            row.base_model,
            row.lora.model_dump_json(),
            json.dumps(row.user_metadata),
            row.state,
            row.created_at,
            row.last_request_at,
            row.owner,
            row.project_id,
            json.dumps(dict(row.optimizer)),
        )

    def get(self, model_id: str) -> ModelRow | None:
        """Look a model up."""
        row = self._database.first("SELECT * FROM models WHERE model_id = ?", model_id)
        return None if row is None else _model(row)

    def set_state(self, model_id: str, state: ModelState) -> None:
        """Record what became of a model's live weights."""
        self._database.write("UPDATE models SET state = ? WHERE model_id = ?", state, model_id)

    def set_lora(self, model_id: str, lora: LoraConfig) -> None:
        """Record which layers a model has now."""
        self._database.write(
            "UPDATE models SET lora = ? WHERE model_id = ?", lora.model_dump_json(), model_id
        )

    def touch(self, model_id: str, now: float) -> None:
        """Record the time of a model's last request."""
        self._database.write(
            "UPDATE models SET last_request_at = ? WHERE model_id = ?", now, model_id
        )

    def page(
        self, owner: str, *, limit: int, offset: int, project_id: str | None = None
    ) -> list[ModelRow]:
        """List the models of an owner, of one project if one is given, newest first."""
        query = (
            f"SELECT models.* FROM {_WITH_SESSION} WHERE models.owner = ? "  # noqa: S608
            f"AND (? IS NULL OR {_PROJECT} = ?) ORDER BY models.rowid DESC LIMIT ? OFFSET ?"
        )
        rows = self._database.all(query, owner, project_id, project_id, limit, offset)
        return [_model(row) for row in rows]

    def count(self, owner: str, *, project_id: str | None = None) -> int:
        """Count the models of an owner, of one project if one is given."""
        query = (
            f"SELECT count(*) FROM {_WITH_SESSION} WHERE models.owner = ? "  # noqa: S608
            f"AND (? IS NULL OR {_PROJECT} = ?)"
        )
        return self._database.number(query, owner, project_id, project_id)

    def of_session(self, session_id: str) -> list[ModelRow]:
        """List the models of a session, oldest first."""
        query = "SELECT * FROM models WHERE session_id = ? ORDER BY rowid"
        return [_model(row) for row in self._database.all(query, session_id)]


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
        owner=row["owner"],
        project_id=row["project_id"],
        optimizer=json.loads(row["optimizer"]),
    )

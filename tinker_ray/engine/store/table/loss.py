"""Custom losses that sessions uploaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinker_ray.engine.store.row import LossRow

if TYPE_CHECKING:
    from tinker_ray.engine.store.database import Database


class LossTable:
    """The table ``losses``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: LossRow) -> None:
        """Record a loss."""
        self._database.write(
            "INSERT INTO losses (loss_id, session_id, name, inputs, graph, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            row.loss_id,
            row.session_id,
            row.name,
            json.dumps(row.inputs),
            json.dumps(row.graph),
            row.created_at,
        )

    def get(self, loss_id: str) -> LossRow | None:
        """Look a loss up."""
        row = self._database.first("SELECT * FROM losses WHERE loss_id = ?", loss_id)
        if row is None:
            return None
        return LossRow(
            loss_id=row["loss_id"],
            session_id=row["session_id"],
            name=row["name"],
            inputs=json.loads(row["inputs"]),
            graph=json.loads(row["graph"]),
            created_at=row["created_at"],
        )

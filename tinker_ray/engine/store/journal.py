"""The accepted training operations and what they came to, as the ledger keeps them.

Invariant: of two operations with one ``(model_id, seq_id)`` only the first is ever recorded. Large
outcomes are files beside the database. Knows nothing of event loops; safe to use from any thread.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from tinker_ray.engine.store.row import Outcome, OutcomeForm, PromiseRow

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from tinker_ray.engine.store.database import Database

LOAD_THE_LAST_CHECKPOINT = (
    "the live weights of this model are lost, because the engine stopped: make a new training "
    "client from the last checkpoint (create_training_client_from_state_with_optimizer)"
)
_LARGE_BYTES = 64 << 10
_PRUNED_AT_ONCE = 256


class Journal:
    """The promises of one data folder.

    Args:
        database: Where the rows are.
        folder: Where large outcomes are; made if it is missing.
        max_bytes: Outcomes are kept up to this sum, the oldest going first.
    """

    def __init__(self, database: Database, folder: Path, *, max_bytes: int = 512 << 20) -> None:
        self._database = database
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._size_bytes = database.number("SELECT coalesce(sum(size_bytes), 0) FROM promises")

    def recover(self) -> None:
        """Fail what the process before this one had accepted and not done."""
        lost = {"error": f"not done: {LOAD_THE_LAST_CHECKPOINT}", "category": "server"}
        self._database.write(
            "UPDATE promises SET form = 'error', body = ? WHERE form IS NULL AND pruned = 0",
            json.dumps(lost).encode(),
        )

    def open(self, row: PromiseRow) -> None:
        """Record an accepted operation."""
        self._database.write(
            "INSERT INTO promises (request_id, kind, model_id, seq_id, owner) "
            "VALUES (?, ?, ?, ?, ?)",
            row.request_id,
            row.kind,
            row.model_id,
            row.seq_id,
            row.owner,
        )

    def settle(self, request_id: str, outcome: Outcome) -> None:
        """Record what an operation came to. Takes a few ms for a large outcome."""
        body: bytes | None = outcome.body
        if len(outcome.body) > _LARGE_BYTES:
            self._file(request_id).write_bytes(outcome.body)
            body = None
        self._database.write(
            "UPDATE promises SET form = ?, body = ?, size_bytes = ? WHERE request_id = ?",
            outcome.form,
            body,
            len(outcome.body),
            request_id,
        )
        self._size_bytes += len(outcome.body)
        while self._size_bytes > self._max_bytes and self._prune():
            pass

    def promise(self, request_id: str) -> PromiseRow | None:
        """Look a promise up by its id."""
        return self._row(
            self._database.first("SELECT * FROM promises WHERE request_id = ?", request_id)
        )

    def find(self, model_id: str, seq_id: int) -> PromiseRow | None:
        """Look a promise up by the place of its operation."""
        query = "SELECT * FROM promises WHERE model_id = ? AND seq_id = ?"
        return self._row(self._database.first(query, model_id, seq_id))

    def _prune(self) -> bool:
        """Drop the oldest outcomes; False if there are none."""
        rows = self._database.all(
            "SELECT request_id, size_bytes FROM promises WHERE size_bytes > 0 "
            "ORDER BY rowid LIMIT ?",
            _PRUNED_AT_ONCE,
        )
        for row in rows:
            self._database.write(
                "UPDATE promises SET form = NULL, body = NULL, size_bytes = 0, pruned = 1 "
                "WHERE request_id = ?",
                row["request_id"],
            )
            self._file(row["request_id"]).unlink(missing_ok=True)
            self._size_bytes -= row["size_bytes"]
            if self._size_bytes <= self._max_bytes:
                break
        return bool(rows)

    def _file(self, request_id: str) -> Path:
        return self._folder / f"{request_id}.bin"

    def _row(self, row: sqlite3.Row | None) -> PromiseRow | None:
        if row is None:
            return None
        outcome, pruned = None, bool(row["pruned"])
        if row["form"] is not None:
            file = self._file(row["request_id"])
            if row["body"] is not None:
                outcome = Outcome(cast("OutcomeForm", row["form"]), row["body"])
            elif file.exists():
                outcome = Outcome(cast("OutcomeForm", row["form"]), file.read_bytes())
            else:
                pruned = True
        return PromiseRow(
            request_id=row["request_id"],
            kind=row["kind"],
            model_id=row["model_id"],
            seq_id=row["seq_id"],
            outcome=outcome,
            pruned=pruned,
            owner=row["owner"],
        )

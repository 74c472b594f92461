"""Answers to requests that a client may repeat under one idempotency key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinker_ray.engine.store.database import Database

_KEPT_S = 24 * 3600.0


class AnswerTable:
    """The table ``answers``; what is in it can be asked for again for a day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, owner: str, key: str, body: dict[str, Any], now: float) -> None:
        """Record an answer; the first one of a key stays."""
        self._database.write(
            "INSERT OR IGNORE INTO answers (owner, idempotency_key, body, answered_at) "
            "VALUES (?, ?, ?, ?)",
            owner,
            key,
            json.dumps(body),
            now,
        )

    def get(self, owner: str, key: str) -> dict[str, Any] | None:
        """Return the answer that a request with this key had."""
        row = self._database.first(
            "SELECT body FROM answers WHERE owner = ? AND idempotency_key = ?", owner, key
        )
        if row is None:
            return None
        body: dict[str, Any] = json.loads(row["body"])
        return body

    def sweep(self, now: float) -> None:
        """Forget old answers."""
        self._database.write("DELETE FROM answers WHERE answered_at < ?", now - _KEPT_S)

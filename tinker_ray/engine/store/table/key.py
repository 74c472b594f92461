"""API keys by their hashes; the keys themselves are nowhere on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.engine.store.row import KeyRow

if TYPE_CHECKING:
    from tinker_ray.engine.store.database import Database


class KeyTable:
    """The table ``keys``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, key_hash: str, owner: str, now: float) -> KeyRow:
        """Record a key, which keeps its number and stays revoked if it was seen before."""
        self._database.write(
            "INSERT INTO keys (key_hash, owner, first_seen_at) VALUES (?, ?, ?) "
            "ON CONFLICT (key_hash) DO UPDATE SET owner = excluded.owner",
            key_hash,
            owner,
            now,
        )
        row = self._database.first("SELECT * FROM keys WHERE key_hash = ?", key_hash)
        if row is None:  # it was written a moment ago
            raise KeyError(key_hash)
        return KeyRow(row["key_id"], key_hash, row["owner"], row["revoked_at"] is not None)

    def revoke(self, key_id: int, now: float) -> None:
        """Record that a key is not valid any more."""
        self._database.write(
            "UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL", now, key_id
        )

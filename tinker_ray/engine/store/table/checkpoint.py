"""Checkpoints by their paths, and what each took of the disk for how long."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tinker_ray.engine.store.row import CheckpointRow

if TYPE_CHECKING:
    import sqlite3

    from tinker_ray.engine.store.database import Database, Statement
    from tinker_ray.types import CheckpointType

_NOT_EXPIRED = "(expires_at IS NULL OR expires_at > ?)"
_INSERTED = (
    "INSERT OR REPLACE INTO checkpoints (tinker_path, run_id, checkpoint_id, checkpoint_type, "
    "directory, size_bytes, created_at, user_metadata, expires_at, owner, public) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SHARE_BEGINS = (
    "INSERT INTO storage (tinker_path, owner, run_id, size_bytes, since) VALUES (?, ?, ?, ?, ?)"
)
_SHARE_ENDS = "UPDATE storage SET until = ? WHERE tinker_path = ? AND until IS NULL"


@dataclass(frozen=True, slots=True)
class StoredShare:
    """A checkpoint's bytes, and the time for which they were there; still there if None."""

    run_id: str
    size_bytes: int
    since: float
    until: float | None


class CheckpointTable:
    """The tables ``checkpoints`` and ``storage``.

    Args:
        database: Where they are.
        folder: The data folder, which directories are named from, so that it can be moved.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def put(self, row: CheckpointRow) -> None:
        """Record a checkpoint in place of the one of the same path, if there is one."""
        inserted: Statement = (
            _INSERTED,
            (
                row.tinker_path,
                row.run_id,
                row.checkpoint_id,
                row.checkpoint_type,
                str(row.directory.relative_to(self._folder)),
                row.size_bytes,
                row.created_at,
                json.dumps(row.user_metadata),
                row.expires_at,
                row.owner,
                int(row.public),
            ),
        )
        share: Statement = (
            _SHARE_BEGINS,
            (row.tinker_path, row.owner, row.run_id, row.size_bytes, row.created_at),
        )
        ended: Statement = (_SHARE_ENDS, (row.created_at, row.tinker_path))
        self._database.transact([inserted, ended, share])

    def get(self, tinker_path: str) -> CheckpointRow | None:
        """Look a checkpoint up."""
        row = self._database.first("SELECT * FROM checkpoints WHERE tinker_path = ?", tinker_path)
        return None if row is None else self._checkpoint(row)

    def of_run(self, run_id: str, now: float) -> list[CheckpointRow]:
        """List the checkpoints of a training run that have not expired, newest first."""
        query = f"SELECT * FROM checkpoints WHERE run_id = ? AND {_NOT_EXPIRED} ORDER BY rowid DESC"  # noqa: S608
        return [self._checkpoint(row) for row in self._database.all(query, run_id, now)]

    def page(self, owner: str, now: float, *, limit: int, offset: int) -> list[CheckpointRow]:
        """List the checkpoints of an owner that have not expired, newest first."""
        query = (
            f"SELECT * FROM checkpoints WHERE owner = ? AND {_NOT_EXPIRED} "  # noqa: S608
            "ORDER BY rowid DESC LIMIT ? OFFSET ?"
        )
        return [
            self._checkpoint(row) for row in self._database.all(query, owner, now, limit, offset)
        ]

    def count(self, owner: str, now: float) -> int:
        """Count the checkpoints of an owner that have not expired."""
        query = f"SELECT count(*) FROM checkpoints WHERE owner = ? AND {_NOT_EXPIRED}"  # noqa: S608
        return self._database.number(query, owner, now)

    def set_public(self, tinker_path: str, *, public: bool) -> None:
        """Let everybody read a checkpoint, or its owner alone."""
        self._database.write(
            "UPDATE checkpoints SET public = ? WHERE tinker_path = ?", int(public), tinker_path
        )

    def set_expiry(self, tinker_path: str, expires_at: float | None) -> None:
        """Let a checkpoint expire at another time, or never."""
        self._database.write(
            "UPDATE checkpoints SET expires_at = ? WHERE tinker_path = ?", expires_at, tinker_path
        )

    def delete(self, tinker_path: str, now: float) -> None:
        """Forget a checkpoint."""
        self._database.transact(
            [
                ("DELETE FROM checkpoints WHERE tinker_path = ?", (tinker_path,)),
                (_SHARE_ENDS, (now, tinker_path)),
            ]
        )

    def expired(self, now: float) -> list[CheckpointRow]:
        """List the checkpoints whose time to live is over."""
        query = "SELECT * FROM checkpoints WHERE expires_at <= ?"
        return [self._checkpoint(row) for row in self._database.all(query, now)]

    def uses(self, directory: Path) -> bool:
        """Whether checkpoints have their weights in a directory."""
        query = "SELECT 1 FROM checkpoints WHERE directory = ? LIMIT 1"
        name = str(directory.relative_to(self._folder))
        return self._database.first(query, name) is not None

    def directories(self) -> set[Path]:
        """Name every directory that checkpoints have their weights in."""
        rows = self._database.all("SELECT DISTINCT directory FROM checkpoints")
        return {self._folder / row["directory"] for row in rows}

    def shares(self, owner: str, start: float, end: float) -> list[StoredShare]:
        """List what an owner's checkpoints took of the disk in a time."""
        query = (
            "SELECT run_id, size_bytes, since, until FROM storage "
            "WHERE owner = ? AND since < ? AND (until IS NULL OR until > ?)"
        )
        return [StoredShare(*row) for row in self._database.all(query, owner, end, start)]

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
            owner=row["owner"],
            public=bool(row["public"]),
        )

"""One SQLite file in write-ahead mode, used from any thread.

A statement is a commit, and a commit is an append to the log without a disk flush (about 0.1 ms, so
an event loop may do it): what was written survives the death of the process at any moment, though
not that of the operating system. A thread of its own moves the log into the file. Knows nothing of
what it holds.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_VERSION = 1
_COMMITS_PER_FLUSH = 500
_BUSY_TIMEOUT_S = 5.0


class Database:
    """An open file.

    Args:
        path: The file, made if it is missing.
        schema: Statements that make the tables of a new file.

    Raises:
        EngineError: The file is damaged, or of another version of the engine.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._num_commits = 0
        self._wake = threading.Event()
        self._closed = False
        try:
            self._connection = _connect(path)
            self._prepare(schema)
        except sqlite3.DatabaseError as error:
            message = f"cannot use the ledger {path}: {error}"
            raise EngineError(message) from error
        self._flusher = threading.Thread(target=self._flush, name="ledger-flush", daemon=True)
        self._flusher.start()

    def _prepare(self, schema: str) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            script = f"BEGIN; {schema} PRAGMA user_version = {_VERSION}; COMMIT;"
            self._connection.executescript(script)
        elif version != _VERSION:
            message = f"the ledger {self._path} is of version {version}, this engine of {_VERSION}"
            raise EngineError(message, category="user")

    def write(self, statement: str, *values: object) -> int:
        """Execute and commit one statement; return the number of rows that it changed."""
        with self._lock:
            num_rows = self._connection.execute(statement, values).rowcount
        self._num_commits += 1
        if self._num_commits % _COMMITS_PER_FLUSH == 0:
            self._wake.set()
        return num_rows

    def first(self, query: str, *values: object) -> sqlite3.Row | None:
        """Return the first row of a query."""
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(query, values).fetchone()
        return row

    def all(self, query: str, *values: object) -> Sequence[sqlite3.Row]:
        """Return every row of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def number(self, query: str, *values: object) -> int:
        """Return the one integer that a query gives."""
        row = self.first(query, *values)
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Move the log into the file and close it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._flusher.join()
        with self._lock:
            self._connection.close()

    def _flush(self) -> None:
        """Move the log into the file now and then: the disk flushes happen here."""
        with contextlib.closing(_connect(self._path)) as connection:
            while not self._closed:
                self._wake.wait()
                self._wake.clear()
                with contextlib.suppress(sqlite3.OperationalError):  # busy: the next turn will do
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection

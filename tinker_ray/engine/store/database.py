"""One SQLite file in write-ahead mode, used from any thread.

A statement is a commit, and a commit is an append to the log without a disk flush (about 0.1 ms, so
an event loop may do it): what was written survives the death of the process at any moment, though
not that of the operating system. What is deferred is committed within a second by a thread, which
also moves the log into the file. Knows nothing of what it holds.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Statement: TypeAlias = "tuple[str, tuple[object, ...]]"

_logger = logging.getLogger("tinker_ray.engine")
_COMMITS_PER_FLUSH = 500
_BUSY_TIMEOUT_S = 5.0
_DEFERRED_FOR_S = 1.0


class Database:
    """An open file.

    Args:
        path: The file, made if it is missing.
        steps: Statements that make the tables; the file's version is how many of them it has had.

    Raises:
        EngineError: The file is damaged, or of a newer version of the engine.
    """

    def __init__(self, path: Path, steps: Sequence[str]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._deferred: deque[Statement] = deque()
        self._num_commits = 0
        self._log_is_long = False
        self._wake = threading.Event()
        self._closed = threading.Event()
        try:
            self._connection = _connect(path)
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        try:
            self._prepare(steps)
        except sqlite3.DatabaseError as error:
            self._connection.close()  # what a step had done is undone
            raise self._unusable(error) from error
        except EngineError:
            self._connection.close()
            raise
        self._flusher = threading.Thread(target=self._flush, name="ledger-flush", daemon=True)
        self._flusher.start()

    def _unusable(self, error: Exception) -> EngineError:
        return EngineError(f"cannot use the ledger {self._path}: {error}")

    def _prepare(self, steps: Sequence[str]) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(steps):
            message = (
                f"the ledger {self._path} is of version {version}, this engine of {len(steps)}: "
                "use the engine that wrote it, or another folder"
            )
            raise EngineError(message, category="user")
        if version < len(steps):
            missing = "".join(steps[version:])
            script = f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {len(steps)}; COMMIT;"
            self._connection.executescript(script)

    def write(self, statement: str, *values: object) -> int:
        """Execute and commit one statement; return the number of rows that it changed."""
        with self._lock:
            num_rows = self._connection.execute(statement, values).rowcount
        self._count_commit()
        return num_rows

    def transact(self, statements: Sequence[Statement]) -> None:
        """Execute statements and commit them together, or none of them."""
        with self._lock:
            self._transact(statements)
        self._count_commit()

    def defer(self, statement: str, *values: object) -> None:
        """Execute a statement within a second; a process that is killed may lose it."""
        self._deferred.append((statement, values))
        self._wake.set()

    def commit_deferred(self) -> None:
        """Commit what was deferred now."""
        with self._lock:
            deferred = [self._deferred.popleft() for _ in range(len(self._deferred))]
            if deferred:
                self._transact(deferred)

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
        """Commit what was deferred, move the log into the file and close it. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake.set()
        self._flusher.join()
        self.commit_deferred()
        with self._lock:
            self._connection.close()

    def _transact(self, statements: Sequence[Statement]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in statements:
                self._connection.execute(statement, values)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _count_commit(self) -> None:
        self._num_commits += 1
        if self._num_commits % _COMMITS_PER_FLUSH == 0:
            self._log_is_long = True
            self._wake.set()

    def _flush(self) -> None:
        """Commit what was deferred, and move the log into the file: disk flushes happen here."""
        with contextlib.closing(_connect(self._path)) as connection:
            while not self._closed.is_set():
                self._wake.wait()
                self._wake.clear()
                if self._deferred:
                    self._closed.wait(_DEFERRED_FOR_S)
                    self._commit_or_log()
                if self._log_is_long:
                    self._log_is_long = False
                    with contextlib.suppress(
                        sqlite3.OperationalError
                    ):  # busy: another turn will do
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _commit_or_log(self) -> None:
        try:
            self.commit_deferred()
        except sqlite3.Error:  # such as a full disk: what was deferred may be lost
            _logger.exception("the ledger lost what was deferred")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection

"""The SQLite file: transactions, deferred statements, versions."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from tinker_ray.engine.store.database import Database
from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.engine.store.schema import STEPS
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = "CREATE TABLE t (x INTEGER PRIMARY KEY);"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "x.sqlite", (FIRST,))
    yield database
    database.close()


def test_statements_of_a_transaction_happen_together_or_not_at_all(database: Database) -> None:
    insert = "INSERT INTO t VALUES (?)"
    database.transact([(insert, (1,)), (insert, (2,))])
    with pytest.raises(sqlite3.IntegrityError):
        database.transact([(insert, (3,)), (insert, (1,))])
    assert [row[0] for row in database.all("SELECT x FROM t ORDER BY x")] == [1, 2]
    database.write(insert, 3)
    assert database.number("SELECT count(*) FROM t") == 3


def test_what_is_deferred_is_there_after_a_commit_and_after_the_end(tmp_path: Path) -> None:
    database = Database(tmp_path / "y.sqlite", (FIRST,))
    database.defer("INSERT INTO t VALUES (?)", 1)
    database.commit_deferred()
    assert database.number("SELECT count(*) FROM t") == 1
    database.defer("INSERT INTO t VALUES (?)", 2)
    database.close()
    again = Database(tmp_path / "y.sqlite", (FIRST,))
    assert again.number("SELECT count(*) FROM t") == 2
    again.close()


def test_a_file_goes_through_the_steps_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    first = Database(path, (FIRST,))
    first.write("INSERT INTO t VALUES (7)")
    first.close()
    second = Database(path, (FIRST, "ALTER TABLE t ADD COLUMN y TEXT NOT NULL DEFAULT 'old';"))
    row = second.first("SELECT x, y FROM t")
    assert row is not None
    assert tuple(row) == (7, "old")
    second.close()


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    Database(path, (FIRST,)).close()
    with pytest.raises(EngineError, match="cannot use the ledger"):
        Database(path, (FIRST, "CREATE TABLE u (z); CREATE TABLE t (again);"))
    again = Database(path, (FIRST,))
    assert again.number("SELECT count(*) FROM sqlite_master WHERE name = 'u'") == 0
    again.close()


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table with its columns: names, types, defaults and keys."""
    connection = sqlite3.connect(path)
    names = [
        row[0]
        for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'index') ORDER BY name"
        )
    ]
    found = {
        name: [tuple(row[1:]) for row in connection.execute(f"PRAGMA table_info({name})")]
        for name in names
    }
    connection.close()
    return found


def test_a_ledger_of_the_first_version_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    connection = sqlite3.connect(old / "ledger.sqlite")
    connection.executescript(f"{STEPS[0]} PRAGMA user_version = 1;")
    connection.executescript(
        """
        INSERT INTO sessions VALUES ('s', 1.0, '["a"]', '{"k": 1}', '0.6.3', NULL, NULL, 2.0,
            NULL, NULL);
        INSERT INTO models VALUES ('s:train:0', 's', 'base', '{"rank": 4}', 'null', 'live', 1.0,
            2.0);
        INSERT INTO samplers VALUES ('s:sample:0', 's', 'base', NULL, 'checkpoints/x', 1, 3.0, 2);
        INSERT INTO checkpoints VALUES ('tinker://s:train:0/weights/a', 's:train:0', 'weights/a',
            'training', 'checkpoints/y', 7, 4.0, 'null', NULL);
        INSERT INTO promises VALUES ('r', 'optim_step', 's:train:0', 1, 'json', x'7B7D', 2, 0);
        """
    )
    connection.close()
    ledger = Ledger(old)
    session, model = ledger.sessions.get("s"), ledger.models.get("s:train:0")
    sampler = ledger.samplers.get("s:sample:0")
    checkpoint = ledger.checkpoints.get("tinker://s:train:0/weights/a")
    promise = ledger.journal.find("s:train:0", 1)
    assert session is not None
    assert model is not None
    assert sampler is not None
    assert checkpoint is not None
    assert promise is not None
    assert {session.owner, model.owner, sampler.owner, checkpoint.owner, promise.owner} == {"local"}
    assert (model.optimizer, model.lora.rank) == ({"type": "adamw"}, 4)
    assert (checkpoint.public, checkpoint.directory) == (False, old / "checkpoints" / "y")
    assert promise.outcome is not None
    assert ledger.samplers.join("s:sample:0") == 3
    assert [share.size_bytes for share in ledger.checkpoints.shares("local", 0, 9)] == [7]
    ledger.close()
    Ledger(new).close()
    assert columns(old / "ledger.sqlite") == columns(new / "ledger.sqlite")

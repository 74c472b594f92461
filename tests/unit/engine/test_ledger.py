from __future__ import annotations

import json
import sqlite3
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.engine.store.row import (
    CheckpointRow,
    ModelRow,
    Outcome,
    PromiseRow,
    SamplerRow,
    SessionRow,
)
from tinker_ray.errors import EngineError
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSION = SessionRow("s", 1.0, ["a", "b"], {"team": "rl"}, "0.38.0", "p", "name")
MODEL = ModelRow("s:train:0", "s", "base", LoraConfig(rank=4, seed=1), {"k": "v"}, "live", 1.0, 2.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def checkpoint(folder: Path, name: str, **changes: object) -> CheckpointRow:
    fields: dict[str, object] = {
        "tinker_path": f"tinker://s:train:0/weights/{name}",
        "run_id": "s:train:0",
        "checkpoint_id": f"weights/{name}",
        "checkpoint_type": "training",
        "directory": folder / "checkpoints" / name,
        "size_bytes": 7,
        "created_at": 3.0,
        "user_metadata": {"step": "1"},
        **changes,
    }
    return CheckpointRow(**fields)  # type: ignore[arg-type]


def test_every_row_comes_back_as_it_was(ledger: Ledger, tmp_path: Path) -> None:
    sampler = SamplerRow("s:sample:0", "s", "base", None, tmp_path / "x" / "y", True, 4.0)  # noqa: FBT003
    saved = checkpoint(tmp_path, "a", expires_at=9.0)
    ledger.sessions.add(SESSION)
    ledger.models.add(MODEL)
    ledger.samplers.add(sampler)
    ledger.checkpoints.put(saved)
    assert ledger.sessions.get("s") == SESSION
    assert ledger.models.get("s:train:0") == MODEL
    assert ledger.samplers.get("s:sample:0") == sampler
    assert ledger.checkpoints.get(saved.tinker_path) == saved


def test_what_is_unknown_is_none(ledger: Ledger) -> None:
    assert ledger.sessions.get("x") is None
    assert ledger.models.get("x") is None
    assert ledger.samplers.get("x") is None
    assert ledger.checkpoints.get("x") is None
    assert ledger.journal.promise("x") is None
    assert ledger.journal.find("x", 1) is None
    assert ledger.samplers.join("x") is None


def test_rows_survive_a_process_that_does_not_close(ledger: Ledger, tmp_path: Path) -> None:
    ledger.sessions.add(SESSION)
    ledger.models.add(MODEL)
    after = Ledger(tmp_path)
    assert after.sessions.get("s") == SESSION
    assert after.models.get("s:train:0") == MODEL
    after.close()


def test_recovery_loses_live_models_and_fails_pending_promises(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.models.add(MODEL)
    done = Outcome("json", b"{}")
    for seq_id in (1, 2):
        row = PromiseRow(f"r{seq_id}", "optim_step", MODEL.model_id, seq_id, outcome=None)
        ledger.journal.open(row)
    ledger.journal.settle("r1", done)
    after = Ledger(tmp_path)
    after.recover()
    model, first, second = (
        after.models.get(MODEL.model_id),
        after.journal.find(MODEL.model_id, 1),
        after.journal.promise("r2"),
    )
    assert model is not None
    assert model.state == "lost"
    assert first is not None
    assert first.outcome == done
    assert second is not None
    assert second.outcome is not None
    told = json.loads(second.outcome.body)
    assert told["category"] == "server"
    assert "create_training_client_from_state_with_optimizer" in told["error"]
    after.close()


def test_a_place_in_a_models_order_is_recorded_once(ledger: Ledger) -> None:
    ledger.journal.open(PromiseRow("r1", "optim_step", "m", 1, outcome=None))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.journal.open(PromiseRow("r2", "optim_step", "m", 1, outcome=None))
    ledger.journal.open(PromiseRow("r3", "optim_step", "m", None, outcome=None))
    ledger.journal.open(PromiseRow("r4", "optim_step", "m", None, outcome=None))


def test_the_oldest_outcomes_make_room_and_say_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, max_outcome_bytes=250_000)
    for seq_id in range(1, 5):
        ledger.journal.open(PromiseRow(f"r{seq_id}", "forward", "m", seq_id, outcome=None))
        ledger.journal.settle(f"r{seq_id}", Outcome("output", bytes(100_000)))
    rows = [ledger.journal.find("m", seq_id) for seq_id in range(1, 5)]
    assert [row.pruned for row in rows if row is not None] == [True, True, False, False]
    assert len(list((tmp_path / "outcomes").iterdir())) == 2
    ledger.close()


def test_a_data_folder_can_be_moved(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "before")
    ledger.checkpoints.put(checkpoint(tmp_path / "before", "a"))
    ledger.close()
    (tmp_path / "before").rename(tmp_path / "after")
    moved = Ledger(tmp_path / "after")
    row = moved.checkpoints.get("tinker://s:train:0/weights/a")
    assert row is not None
    assert row.directory == tmp_path / "after" / "checkpoints" / "a"
    moved.close()


def test_lists_are_newest_first_and_paged(ledger: Ledger, tmp_path: Path) -> None:
    for name in "abc":
        ledger.checkpoints.put(checkpoint(tmp_path, name))
    assert [
        row.checkpoint_id for row in ledger.checkpoints.page("local", 0.0, limit=2, offset=1)
    ] == [
        "weights/b",
        "weights/a",
    ]
    assert ledger.checkpoints.count("local", 0.0) == 3
    assert ledger.checkpoints.of_run("s:train:0", 0.0)[0].checkpoint_id == "weights/c"


def test_a_checkpoint_replaces_the_one_of_the_same_path(ledger: Ledger, tmp_path: Path) -> None:
    ledger.checkpoints.put(checkpoint(tmp_path, "a"))
    ledger.checkpoints.put(checkpoint(tmp_path, "a", user_metadata=None, size_bytes=9))
    row = ledger.checkpoints.get("tinker://s:train:0/weights/a")
    assert row is not None
    assert (row.size_bytes, row.user_metadata) == (9, None)


def test_the_first_reason_of_a_session_stays(ledger: Ledger) -> None:
    ledger.sessions.add(SESSION)
    ledger.sessions.finish("s", {"reason": "success"}, 5.0)
    ledger.sessions.finish("s", {"reason": "errored"}, 6.0)
    row = ledger.sessions.get("s")
    assert row is not None
    assert row.finished_at == 5.0


def test_ephemeral_weights_end_with_their_session(ledger: Ledger, tmp_path: Path) -> None:
    ledger.sessions.add(SESSION)
    ledger.samplers.add(SamplerRow("a", "s", "base", None, tmp_path / "a", True, 1.0))  # noqa: FBT003
    ledger.samplers.add(SamplerRow("b", "s", "base", None, tmp_path / "b", False, 1.0))  # noqa: FBT003
    ledger.sessions.touch("s", 100.0)
    assert ledger.samplers.sweep(finished_before=50.0, seen_before=50.0) == set()
    ledger.sessions.finish("s", {}, 101.0)
    assert ledger.samplers.sweep(finished_before=200.0, seen_before=50.0) == {
        tmp_path / "a",
        tmp_path / "b",
    }


def test_joining_clients_get_numbers_of_their_own(ledger: Ledger) -> None:
    ledger.samplers.add(SamplerRow("a", "s", "base", None, None, False, 1.0))  # noqa: FBT003
    assert [ledger.samplers.join("a") for _ in range(3)] == [1, 2, 3]


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(EngineError, match="cannot use the ledger"):
        Ledger(tmp_path)


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(EngineError, match="version 99"):
        Ledger(tmp_path)


def test_a_promise_is_recorded_in_less_than_a_millisecond(ledger: Ledger) -> None:
    times_s = []
    for number in range(200):
        row = PromiseRow(f"r{number}", "optim_step", "m", number, outcome=None)
        started = time.perf_counter()
        ledger.journal.open(row)
        times_s.append(time.perf_counter() - started)
    assert statistics.median(times_s) < 0.001

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tinker_ray.engine.serving.operation import TrainingOperation, json_outcome
from tinker_ray.engine.serving.promise import PromiseStore
from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tinker_ray.engine.store.row import Outcome


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


async def outcome_of(ledger: Ledger, error: Exception | None) -> dict[str, Any]:
    """Run an operation whose work raises; return what its promise came to."""
    promises = PromiseStore(ledger.journal)
    promise = promises.open_training("optim_step", "m", 1)

    async def work() -> Outcome:
        if error is not None:
            raise error
        return json_outcome({"metrics": {}})

    await TrainingOperation(promise, promises, work, {}).run()
    assert promise.outcome is not None
    told: dict[str, Any] = json.loads(promise.outcome.body)
    return told


def caused(error: EngineError) -> EngineError:
    error.__cause__ = OSError("disk")
    return error


async def test_work_that_succeeds_settles_its_promise(ledger: Ledger) -> None:
    assert await outcome_of(ledger, None) == {"metrics": {}}


@pytest.mark.parametrize("category", ["user", "server"])
async def test_an_error_of_the_engine_is_told_as_it_is(
    ledger: Ledger, category: Literal["user", "server"], caplog: pytest.LogCaptureFixture
) -> None:
    told = await outcome_of(ledger, EngineError("no room", category=category))
    assert told == {"error": "no room", "category": category}
    assert caplog.records == []


async def test_what_the_request_is_at_fault_for_keeps_its_words(ledger: Ledger) -> None:
    told = await outcome_of(ledger, caused(EngineError("no such file", category="user")))
    assert told == {"error": "no such file", "category": "user"}


@pytest.mark.parametrize("error", [ValueError("odd"), caused(EngineError("odd"))])
async def test_an_unexpected_error_is_logged_once_under_an_id(
    ledger: Ledger, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    told = await outcome_of(ledger, error)
    assert told["category"] == "server"
    assert told["error"].startswith("odd (error ")
    (record,) = caplog.records
    assert told["error"].split()[2] in record.getMessage()


async def test_a_result_that_cannot_be_recorded_is_a_failure(ledger: Ledger) -> None:
    promises = PromiseStore(ledger.journal)
    promise = promises.open_training("optim_step", "m", 1)
    ledger.close()

    async def work() -> Outcome:
        return json_outcome({})

    await TrainingOperation(promise, promises, work, {}).run()
    assert promise.outcome is not None
    assert json.loads(promise.outcome.body)["category"] == "server"

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tinker_ray.engine.serving.promise import PromiseStore
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.engine.store.row import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DONE = Outcome("json", b'{"metrics":{}}')


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def promises(ledger: Ledger) -> PromiseStore:
    return PromiseStore(ledger.journal)


async def test_a_waiter_is_woken_when_its_promise_is_settled(promises: PromiseStore) -> None:
    promise = promises.open_training("optim_step", "m", 1)
    waiter = asyncio.create_task(promise.wait(60))
    await asyncio.sleep(0)
    await promises.settle_training(promise, DONE)
    assert await waiter == DONE


async def test_a_waiter_whose_time_is_up_gets_nothing(promises: PromiseStore) -> None:
    promise = promises.open_sample(None)
    assert await promise.wait(0.001) is None


async def test_a_promise_keeps_its_first_outcome(promises: PromiseStore) -> None:
    promise = promises.open_sample(None)
    promises.show(promise, DONE)
    promises.show(promise, Outcome("error", b"{}"))
    assert promises.get(promise.request_id).outcome == DONE


async def test_an_outcome_can_be_read_again(promises: PromiseStore) -> None:
    promise = promises.open_sample(None)
    promises.show(promise, DONE)
    for _ in range(3):
        assert await promises.get(promise.request_id).wait(0) == DONE


async def test_released_waiters_wake_without_an_outcome(promises: PromiseStore) -> None:
    promise = promises.open_sample(None)
    waiter = asyncio.create_task(promise.wait(60))
    await asyncio.sleep(0)
    promises.release()
    assert await waiter is None


async def test_the_same_place_gives_the_same_training_promise(promises: PromiseStore) -> None:
    promise = promises.open_training("optim_step", "m", 3)
    assert promises.find_training("optim_step", "m", 3) == promise.request_id
    assert promises.find_training("optim_step", "m", 4) is None
    assert promises.find_training("optim_step", "m", None) is None


async def test_a_place_cannot_be_taken_by_another_kind_of_operation(promises: PromiseStore) -> None:
    promises.open_training("optim_step", "m", 3)
    with pytest.raises(RequestRejected, match="seq_id: 3 was already used by optim_step"):
        promises.find_training("forward", "m", 3)


async def test_training_outcomes_survive_a_new_store(ledger: Ledger) -> None:
    before = PromiseStore(ledger.journal)
    promise = before.open_training("optim_step", "m", 1)
    await before.settle_training(promise, DONE)
    after = PromiseStore(ledger.journal)
    assert after.find_training("optim_step", "m", 1) == promise.request_id
    assert await after.get(promise.request_id).wait(0) == DONE


async def test_large_training_outcomes_survive_too(ledger: Ledger) -> None:
    before = PromiseStore(ledger.journal)
    promise = before.open_training("forward", "m", 1)
    large = Outcome("output", bytes(1 << 20))
    await before.settle_training(promise, large)
    assert await PromiseStore(ledger.journal).get(promise.request_id).wait(0) == large
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize(
    "request_id,status_code", [("sample-" + 24 * "0", 410), ("train-unknown", 404)]
)
async def test_unknown_promises_are_told_from_lost_samples(
    promises: PromiseStore, request_id: str, status_code: int
) -> None:
    with pytest.raises(RequestRejected) as caught:
        promises.get(request_id)
    assert caught.value.status_code == status_code


async def test_the_least_recently_read_outcome_makes_room(ledger: Ledger) -> None:
    promises = PromiseStore(ledger.journal, max_settled=2)
    first, second, third = (promises.open_sample(("s", number)) for number in range(3))
    promises.show(first, DONE)
    promises.show(second, DONE)
    promises.get(first.request_id)
    promises.show(third, DONE)
    assert promises.get(first.request_id) is first
    assert promises.find_sample(("s", 1)) is None
    with pytest.raises(RequestRejected) as caught:
        promises.get(second.request_id)
    assert caught.value.status_code == 410


async def test_outcomes_are_bounded_by_their_size(ledger: Ledger) -> None:
    promises = PromiseStore(ledger.journal, max_settled_bytes=250)
    opened = [promises.open_sample(None) for _ in range(4)]
    for promise in opened:
        promises.show(promise, Outcome("sample", bytes(100)))
    kept = [promise for promise in opened if promise.request_id in promises._settled]
    assert kept == opened[2:]


async def test_an_evicted_training_outcome_comes_from_the_journal(ledger: Ledger) -> None:
    promises = PromiseStore(ledger.journal, max_settled=1)
    first = promises.open_training("optim_step", "m", 1)
    second = promises.open_training("optim_step", "m", 2)
    await promises.settle_training(first, DONE)
    await promises.settle_training(second, DONE)
    assert await promises.get(first.request_id).wait(0) == DONE

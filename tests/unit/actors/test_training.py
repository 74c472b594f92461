from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.handles.training import Acknowledged, TrainingHandle
from actors.journal import MemoryJournal
from actors.training import WINDOW, TrainingActor
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import SERVICE
from tinker_ray.config import Secret
from tinker_ray.core.operation import LoadState, OptimStep
from tinker_ray.core.session import ModelHandle
from tinker_ray.errors import StaleHandleError, TinkerError
from tinker_ray.types import AdamParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.toy_service import ToyService
    from tinker_ray.core.link import Link

MODEL = ModelHandle("toy-1:train:0")


class Quiet:
    """An inventory that counts, and once fails."""

    def __init__(self) -> None:
        self.announced: list[str] = []

    async def announce(self, model_id: str) -> None:
        self.announced.append(model_id)
        raise TinkerError("the session restarts")


@pytest.fixture
async def remote(open_link: Callable[[], Link]) -> AsyncIterator[FakeRemote]:
    made: list[TrainingActor] = []
    journal = MemoryJournal()

    def make() -> TrainingActor:
        made.append(TrainingActor(SERVICE, MODEL, Quiet(), journal=journal, link=open_link()))
        return made[-1]

    yield FakeRemote(make)
    for actor in made:
        await actor.aclose()


async def no_link() -> Link:
    pytest.fail("nothing here is a secret")


def handle(remote: Any, *, is_copy: bool = False) -> TrainingHandle:  # noqa: ANN401 - a fake
    return TrainingHandle(remote, MODEL, no_link, is_copy=is_copy)


def step(seq: int) -> OptimStep:
    return OptimStep(seq, AdamParams())


async def test_operations_run_in_the_order_of_their_numbers(
    remote: FakeRemote, toy: ToyService
) -> None:
    training = handle(remote)
    await asyncio.gather(*(training.run(step(seq)) for seq in (3, 1, 2)))
    assert [(1, "optim_step"), (2, "optim_step"), (3, "optim_step")] == toy.applied[MODEL.model_id]


async def test_an_actor_that_dies_over_every_operation_applies_each_once(
    remote: FakeRemote, toy: ToyService
) -> None:
    remote.deaths = 20
    training = handle(remote)
    results = await asyncio.gather(*(training.run(step(seq)) for seq in range(1, 31)))
    assert list(range(1, 31)) == [result.metrics["applied:sum"] for result in results]
    assert list(range(1, 31)) == [seq for seq, _ in toy.applied[MODEL.model_id]]


async def test_a_restarted_actor_does_not_wait_for_what_is_acknowledged(
    remote: FakeRemote, toy: ToyService
) -> None:
    training = handle(remote)
    await training.run(step(1), floor=1)
    await training.run(step(2), floor=1)
    remote.deaths = 1
    await training.run(step(3), floor=1)
    assert [1, 2, 3] == [seq for seq, _ in toy.applied[MODEL.model_id]]
    assert ("run", (step(3), 3)) == remote.calls[-1]


class Holding:
    """Never answers the first operation until told to."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.release = asyncio.Event()

    async def run(self, operation: OptimStep, _: int) -> None:
        self.seen.append(operation.seq)
        if operation.seq == 1:
            await self.release.wait()


async def test_the_window_of_a_handle_stays_below_the_slots_of_the_actor() -> None:
    holding = Holding()
    training = handle(FakeRemote(lambda: holding))
    running = [asyncio.create_task(training.run(step(seq))) for seq in range(1, WINDOW + 10)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert list(range(1, WINDOW + 1)) == holding.seen
    holding.release.set()
    await asyncio.gather(*running)
    assert list(range(1, WINDOW + 10)) == holding.seen


async def test_the_window_has_room_for_whose_turn_it_is_however_late_it_comes() -> None:
    holding = Holding()
    holding.release.set()
    training = handle(FakeRemote(lambda: holding))
    later = [asyncio.create_task(training.run(step(seq))) for seq in range(2, WINDOW + 10)]
    for _ in range(5):
        await asyncio.sleep(0)
    await training.run(step(1))
    await asyncio.gather(*later)
    assert WINDOW + 9 == len(holding.seen)


async def test_closing_closes_the_actor(remote: FakeRemote) -> None:
    await handle(remote).aclose()
    assert remote.closed


def test_numbers_acknowledged_out_of_order_raise_the_floor_when_the_gap_closes() -> None:
    acknowledged = Acknowledged(1)
    for number in (2, 4, 1):
        acknowledged.add(number)
    assert 3 == acknowledged.floor
    acknowledged.raise_to(4)
    assert 5 == acknowledged.floor


# --- shared by several processes ------------------------------------------------------------------


async def test_copies_train_one_model_in_one_order(remote: FakeRemote, toy: ToyService) -> None:
    owner = handle(remote)
    await owner.run(step(1))
    await owner.run(step(2))
    assert "fake" == owner.hand_over(3)
    copies = [handle(remote, is_copy=True) for _ in range(3)]
    await asyncio.gather(
        *(copy.run(step(seq)) for copy in copies for seq in (2, 1, 3)),
        *(owner.run(step(seq)) for seq in (3, 4)),
    )
    assert list(range(1, 14)) == [seq for seq, _ in toy.applied[MODEL.model_id]]


async def test_copies_that_take_their_time_are_waited_for_by_nobody(
    remote: FakeRemote, toy: ToyService
) -> None:
    owner = handle(remote)
    await owner.run(step(1))
    owner.hand_over(2)
    first, second = (handle(remote, is_copy=True) for _ in range(2))
    for seq in range(1, 6):
        await asyncio.gather(first.run(step(2 * seq - 1)), first.run(step(2 * seq)))
        await second.run(step(seq))
    await owner.run(step(2))
    assert list(range(1, 18)) == [seq for seq, _ in toy.applied[MODEL.model_id]]


# --- operations with a secret ---------------------------------------------------------------------

HUSH = "hush"


def load(seq: int) -> LoadState:
    return LoadState(
        seq, "tinker://toy-1:train:0/weights/a", optimizer=False, weights_access_token=Secret(HUSH)
    )


def own(remote: Any, open_link: Callable[[], Link], *, is_copy: bool = False) -> TrainingHandle:  # noqa: ANN401
    """A handle with connections of its own."""

    async def link() -> Link:
        return open_link()

    return TrainingHandle(remote, MODEL, link, is_copy=is_copy)


async def test_an_operation_with_a_secret_takes_its_turn_without_the_actor(
    remote: FakeRemote, toy: ToyService, open_link: Callable[[], Link]
) -> None:
    training = own(remote, open_link)
    await asyncio.gather(training.run(step(3)), training.run(load(2)), training.run(step(1)))
    assert [(1, "optim_step"), (2, "load_weights"), (3, "optim_step")] == toy.applied[
        MODEL.model_id
    ]
    assert HUSH not in repr(remote.calls)
    assert not any(isinstance(part, LoadState) for _, given in remote.calls for part in given)


async def test_so_it_does_among_those_of_copies_and_over_deaths_of_the_actor(
    remote: FakeRemote, toy: ToyService, open_link: Callable[[], Link]
) -> None:
    owner = own(remote, open_link)
    await owner.run(step(1))
    owner.hand_over(2)
    copy = own(remote, open_link, is_copy=True)
    await copy.run(step(1))
    remote.deaths = 5
    await asyncio.gather(copy.run(load(2)), copy.run(step(3)), owner.run(load(2)))
    kinds = [kind for _, kind in toy.applied[MODEL.model_id]]
    assert list(range(1, 6)) == [seq for seq, _ in toy.applied[MODEL.model_id]]
    assert ["load_weights"] * 2 + ["optim_step"] * 3 == sorted(kinds)
    assert HUSH not in repr(remote.calls)


async def test_a_turn_that_was_returned_is_not_lent_again(
    remote: FakeRemote, open_link: Callable[[], Link]
) -> None:
    training = own(remote, open_link)
    await training.run(load(1))
    with pytest.raises(StaleHandleError):
        await remote.actor.lend_turn(None, 1, 1)

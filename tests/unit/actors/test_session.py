from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from actors.handles.session import SessionHandle
from actors.journal import MemoryJournal
from actors.lease_keeper import HolderInfo
from actors.session import SessionActor
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import SERVICE
from tinker_ray.config import Secret
from tinker_ray.core.session import ModelHandle
from tinker_ray.errors import BadRequestError
from tinker_ray.limits import BackoffNotice, Claim, Statement
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.toy_service import ToyService
    from tinker_ray.core.link import Link


@pytest.fixture
async def session(open_link: Callable[[], Link]) -> AsyncIterator[SessionActor]:
    actor = SessionActor(SERVICE, link=open_link(), limit=8)
    yield actor
    await actor.aclose()


def statement(holder: str, want: int, serial: int = 1, pause_s: float = -math.inf) -> Statement:
    permits = Claim(holder, serial, epoch=0, held=0, in_use=0, want=want)
    return Statement(permits, replace(permits), 0.0, BackoffNotice(pause_s))


def info(holder: str) -> HolderInfo:
    return HolderInfo(holder, "sampler")


async def test_a_session_makes_models_and_sampling_sessions(session: SessionActor) -> None:
    model = await session.create_model(0, "toy", LoraConfig(rank=4))
    assert ModelHandle("toy-1:train:0") == model
    assert "toy-1:sample:3" == await session.create_sampling_session(3, "toy")
    capabilities = await session.get_server_capabilities()
    assert ["toy"] == [model.model_name for model in capabilities.supported_models]


async def test_a_refusal_keeps_its_class(session: SessionActor) -> None:
    with pytest.raises(BadRequestError, match="unknown base model"):
        await session.create_model(0, "nonsense", LoraConfig(rank=4))


async def test_finishing_ends_the_heartbeat(session: SessionActor, toy: ToyService) -> None:
    await session.finish("success")
    assert ("success", False) == (toy.finished, (await session.inventory())["heartbeat"])


async def test_what_is_stated_shares_the_limit_and_is_counted(session: SessionActor) -> None:
    first = await session.state(statement("a", 6))
    second = await session.state(statement("b", 6))
    assert first.permits is not None
    assert second.permits is not None
    assert (6, 2) == (first.permits.count, second.permits.count)
    assert 2 == (await session.inventory())["messages"]


async def test_a_process_hears_that_it_has_to_give_back(session: SessionActor) -> None:
    await session.state(statement("a", 8))
    listening = asyncio.create_task(session.listen(info("a")))
    await asyncio.sleep(0)
    await session.state(statement("b", 8))
    news = await listening
    assert news is not None
    assert news.permits is not None
    assert (8, 4) == (news.permits.count, news.permits.target)


async def test_news_that_come_while_nobody_listens_are_kept_together(
    session: SessionActor,
) -> None:
    listening = asyncio.create_task(session.listen(info("a")))
    await asyncio.sleep(0)
    await session.state(statement("a", 8))
    await session.state(statement("b", 8))
    first = await listening
    await session.state(statement("c", 8))
    await session.state(statement("d", 8, pause_s=5.0))
    news = await session.listen(info("a"))
    assert first is not None
    assert news is not None
    assert news.permits is not None
    assert news.permits.target < 4
    assert 4 < news.pause.pause_s <= 5


async def test_every_process_hears_of_a_pause(session: SessionActor) -> None:
    for name in "abc":
        await session.state(statement(name, 2))
    listening = [asyncio.create_task(session.listen(info(name))) for name in "abc"]
    await asyncio.sleep(0)
    await session.state(statement("d", 1, pause_s=5.0))
    news = await asyncio.gather(*listening)
    assert all(item is not None and 4 < item.pause.pause_s <= 5 for item in news)


async def test_who_comes_later_hears_of_the_pause_too(session: SessionActor) -> None:
    await session.state(statement("a", 1, pause_s=5.0))
    ruling = await session.state(statement("b", 1))
    assert 4 < ruling.pause.pause_s <= 5


async def test_a_restarted_session_grants_nothing_at_first(open_link: Callable[[], Link]) -> None:
    session = SessionActor(SERVICE, restarted=True, link=open_link())
    try:
        ruling = await session.state(statement("a", 8))
        assert ruling.permits is not None
        assert 0 == ruling.permits.count
    finally:
        await session.aclose()


async def test_the_inventory_names_holders_and_models(session: SessionActor) -> None:
    listening = asyncio.create_task(session.listen(info("a")))
    await asyncio.sleep(0)
    await session.announce("toy-1:train:0")
    inventory = await session.inventory()
    assert [info("a")] == inventory["holders"]
    assert ["toy-1:train:0"] == inventory["trainings"]
    listening.cancel()


# --- numbers --------------------------------------------------------------------------------------


@pytest.fixture
async def remote(open_link: Callable[[], Link]) -> AsyncIterator[FakeRemote]:
    made: list[SessionActor] = []
    kept = MemoryJournal()

    def make() -> SessionActor:
        made.append(SessionActor(SERVICE, link=open_link(), journal=kept))
        return made[-1]

    yield FakeRemote(make)
    for actor in made:
        await actor.aclose()


def handle(remote: Any, **options: Any) -> SessionHandle:  # noqa: ANN401 - a fake
    return SessionHandle(remote, **options)


async def test_a_session_that_nobody_shares_is_numbered_without_its_actor(
    remote: FakeRemote,
) -> None:
    own = handle(remote)
    assert [0, 1, 0] == [await own.number(kind) for kind in ("model", "model", "sampling_session")]
    assert [] == remote.calls


async def test_a_shared_session_goes_on_with_its_numbers_for_all(remote: FakeRemote) -> None:
    own = handle(remote)
    first = [await own.number("model") for _ in range(3)]
    own.share()
    own.share()
    copy = handle(remote, is_copy=True)
    shared = await asyncio.gather(
        *(source.number("model") for source in (own, copy) for _ in range(4))
    )
    assert [0, 1, 2] == first
    assert list(range(3, 11)) == sorted(shared)
    assert 0 == await copy.number("sampling_session")


async def test_no_number_is_issued_twice_when_the_actor_dies(remote: FakeRemote) -> None:
    own = handle(remote)
    own.share()
    remote.deaths = 4
    issued = [await own.number("model") for _ in range(10)]
    assert 10 == len(set(issued))
    assert issued == sorted(issued)


async def test_a_creation_with_a_secret_is_made_by_the_process_itself(
    remote: FakeRemote, open_link: Callable[[], Link]
) -> None:
    asked: list[tuple[Any, ...]] = []

    class Here:
        async def create_model_from_state(self, *given: Any, **named: Any) -> ModelHandle:  # noqa: ANN401
            asked.append((given, named))
            return ModelHandle("toy-1:train:0", 2)

    async def here() -> Any:  # noqa: ANN401
        return Here()

    own = handle(remote, here=here)
    path = "tinker://x:train:0/weights/a"
    made = await own.create_model_from_state(
        0, path, optimizer=True, weights_access_token=Secret("hush")
    )
    assert ModelHandle("toy-1:train:0", 2) == made
    assert 1 == len(asked)
    assert [] == remote.calls

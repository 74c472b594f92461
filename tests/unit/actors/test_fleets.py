"""Fleets: samplers that a process starts and ends itself, and those that it finds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from actors.found_fleet import FoundFleet
from actors.handles.sampler import SamplerPoolHandle
from actors.own_fleet import OwnFleet
from actors.pool_size import PoolBounds
from actors.sampler import Answered, SamplerState
from tests.fakes.remote_actor import FakeRemote, Place
from tests.unit.actors.conftest import request
from tinker_ray.errors import ActorLostError, ConfigurationError, StaleHandleError
from tinker_ray.types import SampleResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from actors.sampler import SampleItem


class Plain:
    """A sampler that answers when the gate is open."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate = gate
        self.load = 0
        self.retired = False

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Answered]:
        self.load += len(batch)
        await self.gate.wait()
        self.load -= len(batch)
        yield Answered([(n, SampleResponse([])) for n in range(len(batch))], self.load)

    async def cancel(self, keys: list[str]) -> None:
        del keys

    def state(self) -> SamplerState:
        return SamplerState("n", self.load, is_ending=self.retired)

    def retire(self) -> None:
        self.retired = True


class Closing:
    """Closes the pool whatever becomes of the test, whose failure is then the only one."""

    pool: SamplerPoolHandle

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.aclose()


@dataclass
class Cluster(Closing):
    """What a fleet starts samplers on; at once, as looks follow each other without a pause."""

    bounds: PoolBounds = field(default_factory=PoolBounds)
    nodes: dict[str, float] | None = field(default_factory=lambda: {"n": 4.0})
    remotes: dict[int, FakeRemote] = field(default_factory=dict)
    broken: ConfigurationError | None = None
    broken_node: str | None = None

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.fleet = OwnFleet(self.bounds, self.start, lambda: self.nodes, "n")
        self.pool = SamplerPoolHandle(self.fleet, "n", carries=self.bounds.carries)

    def start(self, number: int, node: str | None) -> Any:  # noqa: ANN401
        remote = _Remote(lambda: Plain(self.gate), f"sampler-{number}")
        remote.node = node or "n"
        remote.broken = self.broken if self.broken_node in {None, node} else None
        self.remotes[number] = remote
        return remote

    def ask(self, count: int) -> list[asyncio.Task[SampleResponse]]:
        return [asyncio.create_task(self.pool.sample(request(n))) for n in range(count)]


class _Remote(FakeRemote):
    broken: ConfigurationError | None = None
    node = ""

    async def ping(self) -> Place:
        if self.broken is not None:
            raise self.broken
        return Place(self.node)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("own_fleet.LOOK_S", "own_fleet.SELDOM_S", "found_fleet.LOOK_S"):
        monkeypatch.setattr(f"actors.{name}", 0.001)


async def soon(condition: Callable[[], bool]) -> None:
    """Let the fleet look again and again."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads answer
            await asyncio.sleep(0.001)


async def test_a_fleet_grows_drains_and_ends_what_is_empty() -> None:
    async with Cluster(PoolBounds(least=1, most=3, carries=4, idle_s=0.05, grow_s=0.0)) as cluster:
        waiting = cluster.ask(10)
        await soon(lambda: len(cluster.remotes) == 3)
        await soon(lambda: sum(each.actor.load for each in cluster.remotes.values()) == 10)
        cluster.gate.set()
        await asyncio.gather(*waiting)
        await soon(lambda: sum(remote.closed for remote in cluster.remotes.values()) == 2)
        assert 1 == len(cluster.pool.samplers)
        ended = [remote for remote in cluster.remotes.values() if remote.closed]
        assert all(remote.actor.retired for remote in ended)


async def test_a_sampler_on_a_lost_node_is_replaced_and_its_samples_drawn_elsewhere() -> None:
    async with Cluster(nodes={"n": 1.0, "m": 1.0}) as cluster:
        await soon(lambda: len(cluster.pool.samplers) == 2)
        waiting = cluster.ask(8)
        await soon(lambda: sum(each.actor.load for each in cluster.remotes.values()) == 8)
        cluster.nodes = {"n": 1.0}
        await soon(lambda: len(cluster.pool.samplers) == 1)
        cluster.gate.set()
        assert 8 == len(await asyncio.gather(*waiting))


async def test_where_no_sampler_can_work_the_reason_is_given() -> None:
    async with Cluster(broken=ConfigurationError("no API key on the node")) as cluster:
        with pytest.raises(ConfigurationError, match="no API key on the node"):
            await cluster.pool.sample(request(1))


async def test_a_node_where_no_sampler_can_work_is_left_to_others() -> None:
    async with Cluster(
        nodes={"m": 1.0, "n": 1.0}, broken=ConfigurationError("no key"), broken_node="m"
    ) as cluster:
        cluster.gate.set()
        assert 4 == len(await asyncio.gather(*cluster.ask(4)))
        assert "n" in {sampler.member.node for sampler in cluster.pool.samplers.values()}


async def test_samples_do_not_wait_for_a_cluster_that_is_gone() -> None:
    async with Cluster() as cluster:
        [sampler] = cluster.pool.samplers.values()
        await soon(lambda: sampler.member.is_ready)
        cluster.nodes = None
        sampler.member.is_ready = False
        with pytest.raises(StaleHandleError, match="not connected"):
            await cluster.pool.sample(request(1))


class Finder(Closing):
    """A session whose samplers come and go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.living: set[str] | None = {"s/session", "s/sampler-0"}
        self.found: dict[str, FakeRemote] = {}
        fleet = FoundFleet(
            ["s/sampler-0"],
            self.find,
            lambda: self.living,
            session="s/session",
            prefix="s/sampler-",
        )
        self.pool = SamplerPoolHandle(fleet, is_copy=True)

    def find(self, name: str) -> Any:  # noqa: ANN401
        self.found[name] = FakeRemote(lambda: Plain(self.gate), name)
        return self.found[name]


async def test_a_copy_follows_the_samplers_of_its_owner() -> None:
    async with Finder() as finder:
        await finder.pool.sample(request(1))
        finder.living = {"s/session", "s/training-0", "s/sampler-1", "s/sampler-2"}
        await finder.pool.sample(request(2))
        await soon(lambda: set(finder.pool.samplers) == {"s/sampler-1", "s/sampler-2"})
        await finder.pool.sample(request(3))
        await finder.pool.aclose()
        assert [True] * 3 == [remote.closed for remote in finder.found.values()]
        assert not any(remote.killed for remote in finder.found.values())


async def test_a_copy_does_not_wait_for_a_session_that_is_over() -> None:
    async with Finder() as finder:
        finder.gate.clear()
        finder.living = set()
        with pytest.raises(ActorLostError, match="its owner has ended"):
            await finder.pool.sample(request(1))

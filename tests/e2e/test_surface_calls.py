"""Every call of the upstream surface, made in either mode against the embedded engine."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tinker_ray
from tests.e2e.surface_calls import CALLS
from tests.e2e.surface_world import Call, World

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[1] / "contract" / "golden" / "upstream_surface.json"
CLIENTS = {call.on for call in CALLS}
IDS = [f"{number}-{call.on}.{call.name}" for number, call in enumerate(CALLS)]
PATIENCE_S = 60


@pytest.fixture(scope="module")
def local_world(embedded_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from opened("local", tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def cluster_world(
    embedded_engine: str, ray_cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    yield from opened("cluster", tmp_path_factory.mktemp("cluster"))


def opened(mode: Any, folder: Path) -> Iterator[World]:  # noqa: ANN401 - a literal
    tinker_ray.init(mode=mode)
    try:
        world = World.of(tinker_ray.ServiceClient(base_url="embedded"), folder)
        yield world
        world.close()
    finally:
        tinker_ray.shutdown()


def settled(answer: Any) -> Any:  # noqa: ANN401
    return answer.result(PATIENCE_S) if isinstance(answer, Future) else answer


async def settled_async(answer: Any) -> Any:  # noqa: ANN401
    """Await what the call gives, and the future that some calls give."""
    value = await answer
    return await value if isinstance(value, tinker_ray.APIFuture) else value


def make(call: Call, world: World) -> None:
    """Make a call and its async twin."""
    client = call.of(world)
    method = getattr(client, call.name)
    if call.fails is not None:
        with pytest.raises(call.fails):
            settled(method(*call.given(world), **call.named))
        return
    assert call.check(world, settled(method(*call.given(world), **call.named)))
    twin = getattr(client, f"{call.name}_async", None)
    if twin is not None:
        work = settled_async(twin(*call.given(world), **call.named))
        assert call.check(world, asyncio.run(work))


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_a_call_works_in_local_mode(call: Call, local_world: World) -> None:
    make(call, local_world)


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_a_call_works_on_a_cluster(call: Call, cluster_world: World) -> None:
    make(call, cluster_world)


def test_no_public_call_of_either_generation_is_left_out() -> None:
    recorded = {
        (name, member.removesuffix("_async"))
        for generation in json.loads(GOLDEN.read_text()).values()
        for name, members in generation["classes"].items()
        for member, described in members.items()
        if name in CLIENTS and not member.startswith("_") and "parameters" in described
    }
    assert set() == recorded - {(call.on, call.name) for call in CALLS}

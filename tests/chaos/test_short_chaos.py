"""Actors are killed while they work, at seeded moments; the work is done all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import ray.util
from ray._common.test_utils import wait_for_condition

from actors.attached import AttachedRuntime
from actors.handles.rollout import RolloutHandle
from tests.fakes.cluster_session import cluster_session, expected_tokens, kill, tokens
from tests.fakes.environment import CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray.core.operation import OptimStep
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.types import AdamParams, LoraConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("ray_cluster")

DRIVER = """
import asyncio, sys
import ray
from actors.runtime import ClusterRuntime
from tinker_ray.config import EMBEDDED_API_KEY, Settings

async def main():
    settings = Settings.from_env(base_url=sys.argv[2], api_key=EMBEDDED_API_KEY)
    runtime = await ClusterRuntime.open(settings)
    print(runtime.session_id, flush=True)
    await asyncio.sleep(1000)

ray.init(sys.argv[1], log_to_driver=False)
asyncio.run(main())
"""

SHORT_SEED = 20
SOAK_SEEDS = range(21, 31)
KILLS = 3


async def killing_after(
    progress: Callable[[], int], moments: list[int], strike: Callable[[], Awaitable[Any]]
) -> None:
    """Strike whenever the progress of the work reaches the next moment."""
    for moment in moments:
        while progress() < moment:  # noqa: ASYNC110 - the progress is other processes'
            await asyncio.sleep(0.005)
        await strike()
        print(f"killed at {moment}")  # noqa: T201 - the story, if the test fails


@pytest.fixture(
    params=[SHORT_SEED, *(pytest.param(number, marks=pytest.mark.soak) for number in SOAK_SEEDS)]
)
def seed(request: pytest.FixtureRequest) -> int:
    """One seed in the default run, ten more in the long one."""
    number: int = request.param
    return number


def moments(total: int, seed: int) -> list[int]:
    """When to strike, in units of work done; the same for the same seed."""
    chosen = sorted(Random(f"{seed}/{total}").sample(range(1, total * 3 // 4), KILLS))
    print(f"seed {seed}: kill at {chosen} of {total}")  # noqa: T201 - the story
    return chosen


async def test_samples_survive_the_death_of_their_sampler(seed: int) -> None:
    toy = ToyService(sample_s=0.2, dispatch_s=0.01)
    async with cluster_session(toy) as session:
        await session.runtime.sampling.sample(session.request(1000))
        work = [
            asyncio.create_task(session.runtime.sampling.sample(session.request(number)))
            for number in range(200)
        ]
        [sampler] = session.runtime.sampling.samplers.values()
        await killing_after(
            lambda: len(toy.sampled), moments(200, seed), lambda: kill(sampler.remote)
        )
        answers = await asyncio.gather(*work)
    assert [expected_tokens(number) for number in range(200)] == [tokens(item) for item in answers]
    assert {1} == set(toy.sampled.values())


async def test_training_operations_are_applied_once_whoever_dies(seed: int) -> None:
    toy = ToyService()
    async with cluster_session(toy) as session:
        model = await session.runtime.session.create_model(0, "toy", LoraConfig(rank=4))
        training = await session.runtime.open_training(model)
        await training.run(OptimStep(1, AdamParams()))
        toy.train_s = 0.3
        work = [
            asyncio.create_task(training.run(OptimStep(seq, AdamParams()))) for seq in range(2, 151)
        ]
        applied = toy.applied[model.model_id]
        await killing_after(
            lambda: len(applied), moments(150, seed), lambda: kill(training._remote)
        )
        results = await asyncio.gather(*work)
    assert list(range(1, 151)) == [seq for seq, _ in applied]
    assert list(range(2, 151)) == [result.metrics["applied:sum"] for result in results]


async def test_operations_of_copies_are_applied_once_whoever_dies(seed: int) -> None:
    toy = ToyService()
    async with cluster_session(toy) as session:
        model = await session.runtime.session.create_model(0, "toy", LoraConfig(rank=4))
        owner = await session.runtime.open_training(model)
        await asyncio.gather(*(owner.run(OptimStep(seq, AdamParams())) for seq in range(1, 11)))
        name = owner.hand_over(11)
        copies = [session.runtime._crew.attach_training(model, name) for _ in range(2)]
        toy.train_s = 0.3
        first_numbers = {owner: 11, copies[0]: model.first_seq, copies[1]: model.first_seq}
        work = [
            asyncio.create_task(training.run(OptimStep(first + number, AdamParams())))
            for number in range(50)
            for training, first in first_numbers.items()
        ]
        applied = toy.applied[model.model_id]
        await killing_after(lambda: len(applied), moments(160, seed), lambda: kill(owner._remote))
        results = await asyncio.gather(*work)
        for copy in copies:
            await copy.aclose()
    assert list(range(1, 161)) == [seq for seq, _ in applied]
    places = [result.metrics["applied:sum"] for result in results]
    assert set(range(11, 161)) == set(places)
    # Each client's own operations are applied in the order in which it asked for them.
    assert all(places[start::3] == sorted(places[start::3]) for start in range(3))


async def test_numbers_stay_unique_when_the_session_actor_dies(seed: int) -> None:
    toy = ToyService(dispatch_s=0.01)
    async with cluster_session(toy) as session:
        runtime = session.runtime
        attached = AttachedRuntime(
            runtime._starter.service, runtime.reference(creates=True), runtime._crew
        )
        issued: list[int] = []

        async def issue(source: Any) -> None:  # noqa: ANN401 - a runtime, of either kind
            for _ in range(50):
                issued.append(await source.number("model"))  # noqa: PERF401 - seen while it runs

        work = [asyncio.create_task(issue(source)) for source in (runtime, attached)]
        await killing_after(
            lambda: len(issued), moments(100, seed), lambda: kill(runtime.session.remote)
        )
        await asyncio.gather(*work)
        await attached.sampling.aclose()
        await attached.session.remote.let_go()
    assert 100 == len(set(issued)) == len(issued)


async def test_sampling_goes_on_under_the_same_limit_when_the_session_actor_dies(
    seed: int,
) -> None:
    toy = ToyService(sample_s=0.05, dispatch_s=0.02)
    async with cluster_session(toy) as session:
        await session.runtime.sampling.sample(session.request(1000))
        work = [
            asyncio.create_task(session.runtime.sampling.sample(session.request(number)))
            for number in range(300)
        ]
        [moment, *_] = moments(300, seed)
        await killing_after(
            lambda: len(toy.sampled), [moment], lambda: kill(session.runtime.session.remote)
        )
        answers = await asyncio.gather(*work)
        inventory = await session.runtime.session.inventory()
        model = await session.runtime.session.create_model(0, "toy", LoraConfig(rank=4))
    assert [expected_tokens(number) for number in range(300)] == [tokens(item) for item in answers]
    assert toy.most_dispatches <= inventory["permits_limit"]
    assert (session.runtime.session_id, True) == (inventory["session_id"], inventory["heartbeat"])
    assert model.model_id.startswith(session.runtime.session_id)


async def test_groups_of_a_lost_rollout_actor_are_run_elsewhere(seed: int) -> None:
    toy = ToyService(sample_s=0.05)
    async with cluster_session(toy) as session:

        class Client:
            sampling_session_id = session.sampling_session_id
            retry_config = None

        async def open_worker(_: object, number: int) -> RolloutHandle:
            return await session.runtime.open_rollout(number)

        client: Any = Client()
        builders = [CountingGroup([1, 2, number], size=2, num_turns=3) for number in range(40)]
        groups = []
        strikes = moments(40, seed)
        async with RolloutPool(workers=2, groups_per_worker=4, open_worker=open_worker) as pool:
            async for group in pool.run(builders, client):
                groups.append(group)
                if len(groups) in strikes:
                    await kill(session.runtime._crew._rollouts[0]._remote)
    assert list(range(40)) == sorted(group.index for group in groups)
    assert any(group.attempt > 0 for group in groups)


def test_the_actors_of_a_killed_driver_end() -> None:
    cluster = ray.get_runtime_context().gcs_address
    with (
        ToyServer(ToyService(name="orphan")) as server,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster, server.url], stdout=subprocess.PIPE, text=True
        ) as driver,
    ):
        assert driver.stdout is not None
        session_id = driver.stdout.readline().strip()
        assert f"{session_id}/session" in actor_names()
        driver.kill()
    wait_for_condition(lambda: not {name for name in actor_names() if session_id in name})


def actor_names() -> set[str]:
    return {str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)}

"""The actors on real Ray, in front of a toy service."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import ray.util

from actors.handles.rollout import RolloutHandle
from actors.runtime import ClusterRuntime
from tests.fakes.cluster_session import cluster_session, expected_tokens, tokens
from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray.config import Settings
from tinker_ray.core.operation import OptimStep
from tinker_ray.errors import BadRequestError, ConfigurationError, StaleHandleError
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rollouts import Attempt, AttemptId, RolloutFailedError, RolloutParams
from tinker_ray.types import AdamParams, LoraConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fakes.cluster_session import ClusterSession
    from tinker_ray.rollouts import Action, Env, Sampler, StepResult
    from tinker_ray.types import ModelInput, SampleResponse, SamplingParams

pytestmark = pytest.mark.usefixtures("ray_cluster")


def actor_names() -> set[str]:
    return {str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)}


def attempt() -> Attempt:
    return Attempt(AttemptId(0, 0), RolloutParams(max_tokens=3, seed=5))


class SamplingClient:
    """What a rollout handle needs of a sampling client; the actor samples by itself."""

    retry_config = None

    def __init__(self, session: ClusterSession) -> None:
        self.sampling_session_id = session.sampling_session_id

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        pytest.fail(f"asked for {num_samples} of {prompt} by {sampling_params}")


async def test_samples_come_from_the_cluster_under_one_limit() -> None:
    toy = ToyService(dispatch_s=0.002)
    async with cluster_session(toy) as session:
        answers = await asyncio.gather(
            *(session.runtime.sampling.sample(session.request(seed)) for seed in range(100))
        )
        inventory = await session.runtime.session.inventory()
    assert [expected_tokens(seed) for seed in range(100)] == [tokens(item) for item in answers]
    assert ["sampler"] == [holder.kind for holder in inventory["holders"]]
    assert "success" == toy.finished


async def test_training_operations_are_applied_in_their_order() -> None:
    async with cluster_session(ToyService()) as session:
        model = await session.runtime.session.create_model(0, "toy", LoraConfig(rank=4))
        training = await session.runtime.open_training(model)
        await asyncio.gather(
            *(training.run(OptimStep(seq, AdamParams())) for seq in range(100, 0, -1))
        )
        assert list(range(1, 101)) == [seq for seq, _ in session.toy.applied[model.model_id]]


async def test_the_registry_is_read_through_its_actor() -> None:
    async with cluster_session(ToyService()) as session:
        found = await session.runtime.registry.call("get_sampler", {"sampler_id": "s"})
    assert "toy" == found.base_model


async def test_errors_are_ours_and_no_others() -> None:
    async with cluster_session(ToyService()) as session:
        with pytest.raises(BadRequestError) as caught:
            await session.runtime.session.create_model(0, "nonsense", LoraConfig(rank=4))
    assert BadRequestError is type(caught.value)
    assert "Traceback" not in str(caught.value)


async def test_nothing_is_left_of_a_closed_runtime() -> None:
    async with cluster_session(ToyService()) as session:
        runtime = session.runtime
        model = await runtime.session.create_model(0, "toy", LoraConfig(rank=4))
        await runtime.open_training(model)
        await runtime.open_rollout(0)
        await runtime.registry.call("get_sampler", {"sampler_id": "s"})
        names = {f"{runtime.session_id}/{kind}" for kind in ("session", "checkpoint", "sampler-0")}
        assert names <= actor_names()
        await runtime.aclose()
        assert not {name for name in actor_names() if name.startswith(f"{runtime.session_id}/")}
        with pytest.raises(StaleHandleError):
            await runtime.sampling.sample(session.request(0))


async def test_two_runtimes_live_side_by_side() -> None:
    first_toy, second_toy = ToyService(name="first"), ToyService(name="second")
    async with cluster_session(first_toy) as first, cluster_session(second_toy) as second:
        await asyncio.gather(
            first.runtime.sampling.sample(first.request(1)),
            second.runtime.sampling.sample(second.request(1)),
        )
    assert (1, 1) == (len(first_toy.sampled), len(second_toy.sampled))


async def test_a_key_that_only_the_driver_has_is_refused_with_advice() -> None:
    with ToyServer(ToyService()) as server:
        settings = Settings.from_env(base_url=server.url, api_key="tml-only-here")
        with pytest.raises(ConfigurationError, match="TINKER_API_KEY in the environment"):
            await ClusterRuntime.open(settings)


async def test_an_actor_answers_questions_while_its_work_fills_all_slots() -> None:
    async with cluster_session(ToyService(train_s=1000.0)) as session:
        session.toy.train_s = 0.0
        model = await session.runtime.session.create_model(0, "toy", LoraConfig(rank=4))
        training = await session.runtime.open_training(model)
        await training.run(OptimStep(1, AdamParams()))
        session.toy.train_s = 1000.0
        stuck = [
            asyncio.create_task(training.run(OptimStep(seq, AdamParams()))) for seq in range(2, 100)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):  # far less than the work takes
            await training._remote.ping()
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_pool_runs_its_groups_on_rollout_actors() -> None:
    async with cluster_session(ToyService()) as session:

        async def open_worker(_: Sampler, number: int) -> RolloutHandle:
            return await session.runtime.open_rollout(number)

        builders = [CountingGroup([1, 2, number], size=2, num_turns=2) for number in range(12)]
        async with RolloutPool(workers=2, open_worker=open_worker) as pool:
            groups = [group async for group in pool.run(builders, SamplingClient(session))]
    assert list(range(12)) == sorted(group.index for group in groups)
    assert {2} == {len(item.transitions) for group in groups for item in group.trajectories_G}


async def test_an_environment_that_fails_on_an_actor_is_told_in_our_error() -> None:
    async with cluster_session(ToyService()) as session:
        rollout = await session.runtime.open_rollout(0)
        builder = CountingGroup([1], error=RuntimeError("broken"))
        with pytest.raises(RolloutFailedError, match="broken") as caught:
            await rollout.run_group(builder, SamplingClient(session), attempt())
    assert "environment" == caught.value.kind


class InspectingEnv(CountingEnv):
    """Tells what its process has imported."""

    async def step(self, action: Action) -> StepResult:
        result = await super().step(action)
        loaded = [name for name in ("torch", "transformers") if name in sys.modules]
        result.logs["loaded"] = ",".join(loaded)
        return result


@dataclass
class InspectingGroup(CountingGroup):
    async def make_envs(self) -> Sequence[Env]:
        return [InspectingEnv(self.prompt)]


async def test_worker_processes_are_slim() -> None:
    async with cluster_session(ToyService()) as session:
        rollout = await session.runtime.open_rollout(0)
        group = await rollout.run_group(InspectingGroup([1]), SamplingClient(session), attempt())
    assert "" == group.trajectories_G[0].transitions[0].logs["loaded"]

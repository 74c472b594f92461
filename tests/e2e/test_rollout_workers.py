"""Rollout workers on real Ray: what they are given, what blocks in them, what they give up."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics

from actors.worker_options import WorkerOptions
from tests.fakes.cluster_session import ClusterSession, cluster_session
from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray import ServiceClient
from tinker_ray.clients.mode import init, shutdown
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rollouts import (
    RolloutParams,
    SamplerPolicy,
    Timeouts,
    TrajectoryGroup,
    derive_seed,
    run_group,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.handles.rollout import RolloutHandle
    from tests.fakes.measured import Measured
    from tinker_ray.rl.pool import OpenWorker
    from tinker_ray.rollouts import Action, EnvGroupBuilder, Sampler, StepResult, Trajectory

pytestmark = pytest.mark.usefixtures("ray_cluster")

PARAMS = RolloutParams(max_tokens=3, seed=5)


class SamplingClient:
    """What a rollout handle needs of a sampling client; the actor samples by itself."""

    retry_config = None

    def __init__(self, session: ClusterSession) -> None:
        self.sampling_session_id = session.sampling_session_id
        self._sampling = session.runtime.sampling

    async def sample_async(self, prompt: Any, num_samples: int, sampling_params: Any) -> Any:  # noqa: ANN401
        pytest.fail(f"asked for {num_samples} of {prompt} by {sampling_params}")


def on_cluster(session: ClusterSession, options: WorkerOptions) -> OpenWorker:
    async def open_worker(_: Sampler, number: int) -> RolloutHandle:
        return await session.runtime.open_rollout(number, options)

    return open_worker


def set_mark() -> None:
    os.environ["ROLLOUT_TEST_SETUP"] = os.environ["ROLLOUT_TEST_VARIABLE"] + " and more"


def break_down() -> None:
    raise FileNotFoundError("no vocabulary")


class PlainEnv:
    """The counting environment with plain methods; tells of its process."""

    def __init__(self, prompt: list[int], *, hangs: bool) -> None:
        self._env = CountingEnv(prompt, num_turns=2)
        self._problem = prompt[1]
        self._hangs = hangs

    def initial_observation(self) -> Any:  # noqa: ANN401
        return drive(self._env.initial_observation())

    def step(self, action: Action) -> StepResult:
        if self._hangs:
            threading.Event().wait()
        meter = metrics.get_meter("users.environment")
        meter.create_counter("env_steps").add(1, {"problem": self._problem})
        result: StepResult = drive(self._env.step(action))
        result.logs["mark"] = os.environ.get("ROLLOUT_TEST_SETUP", "")
        result.logs["thread"] = threading.current_thread().name
        return result


def drive(coroutine: Any) -> Any:  # noqa: ANN401
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError


@dataclass
class PlainGroup(CountingGroup):
    """Environments with plain methods; the first so many hang."""

    num_hanging: int = 0

    async def make_envs(self) -> Sequence[Any]:
        return [
            PlainEnv(self.prompt, hangs=number < self.num_hanging) for number in range(self.size)
        ]


async def test_workers_have_their_setup_and_environment_and_block_in_threads(
    measured: Measured,
) -> None:
    options = WorkerOptions(
        setup=set_mark,
        num_cpus=1,
        runtime_env={"env_vars": {"ROLLOUT_TEST_VARIABLE": "told"}},
    )
    async with cluster_session(ToyService()) as session:
        client = SamplingClient(session)
        pool = RolloutPool(
            1,
            open_worker=on_cluster(session, options),
            timeouts=Timeouts(step_s=2.0),
            min_episodes=3,
        )
        async with pool:
            builders = [PlainGroup([1, n], size=4, num_hanging=n) for n in range(2)]
            groups = {g.index: g async for g in pool.run(builders, client, PARAMS)}
        with pytest.raises(
            ConfigurationError, match=r"break_down failed in the rollout actor .*no v"
        ):
            await session.runtime.open_rollout(9, WorkerOptions(setup=break_down))
    logs = groups[0].trajectories_G[0].transitions[0].logs
    assert {"mark": "told and more", "thread": "environment"} == logs
    assert (0, 1) == (groups[0].num_failed, groups[1].num_failed)
    assert "stall" == groups[1].rollout_errors[0].error_type
    steps = {point.attributes["problem"]: point.value for point in measured.points("env_steps")}
    assert {0: 4 * 2, 1: 3 * 2} == steps  # of the environments, in this process's instruments


@dataclass
class CookbookGroup:
    """A builder by the cookbook's protocol, which inherits nothing of ours."""

    prompt: list[int]
    size: int = 3

    async def make_envs(self) -> Sequence[Any]:
        return [CountingEnv([*self.prompt, number % 2], num_turns=3) for number in range(self.size)]

    async def compute_group_rewards(
        self, trajectory_group: list[Trajectory], env_group: Sequence[Any]
    ) -> list[tuple[float, dict[str, float | int]]]:
        longest = max(len(trajectory.transitions) for trajectory in trajectory_group)
        return [(float(number), {"longest": longest}) for number in range(len(env_group))]

    async def cleanup(self) -> None:
        pass

    def logging_tags(self) -> list[str]:
        return ["cookbook"]


async def pooled(
    sampler: Sampler, builders: Sequence[EnvGroupBuilder]
) -> dict[int, TrajectoryGroup]:
    async with RolloutPool(2, groups_per_worker=2) as pool:
        return {
            group.index: TrajectoryGroup(
                group.trajectories_G, group.final_rewards_G, group.metrics_G
            )
            async for group in pool.run(builders, sampler, PARAMS)
        }


def test_a_seeded_group_is_the_same_in_this_process_in_a_local_pool_and_on_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", EMBEDDED_API_KEY)
    builders = [CookbookGroup([1, 2, number]) for number in range(4)]
    with ToyServer(ToyService()) as server:
        init(mode="local")
        with ServiceClient(base_url=server.url) as service:
            sampler = service.create_sampling_client(base_model="toy")
            here = {}
            for index, builder in enumerate(builders):
                params = replace(PARAMS, seed=derive_seed(5, index))
                here[index] = asyncio.run(run_group(builder, SamplerPolicy(sampler, params)))
            local = asyncio.run(pooled(sampler, builders))
        init()
        with ServiceClient(base_url=server.url) as service:
            sampler = service.create_sampling_client(base_model="toy")
            cluster = asyncio.run(pooled(sampler, builders))
    shutdown()
    assert here == local
    assert here == cluster
    assert 4 == len({str(group.get_total_rewards()) for group in here.values()})

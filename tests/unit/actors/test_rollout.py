from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from actors.handles.rollout import RolloutHandle
from actors.hosted import HostedSampling
from actors.rollout import HostedSampler, RolloutActor, SamplerRef
from actors.session import SessionActor
from actors.shipping import Shipment, Shipped
from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.measured import Measured
from tests.fakes.remote_actor import FakeRemote
from tests.fakes.toy_service import ToyService, ToyTransport
from tests.unit.actors.conftest import SERVICE, until
from tinker_ray.core.flags import JSON_ONLY
from tinker_ray.core.link import Link
from tinker_ray.errors import ActorLostError
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    RolloutFailedError,
    RolloutParams,
    TrajectoryGroup,
)
from tinker_ray.telemetry.told_meters import ToldMeters
from tinker_ray.transport.message import Response
from tinker_ray.types import ModelInput, RetryConfig, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tinker_ray.rollouts import Action, Env, StepResult
    from tinker_ray.transport.message import Request

REFERENCE = SamplerRef("toy-1:sample:0")


def attempt(number: int = 0, seed: int = 5) -> Attempt:
    return Attempt(AttemptId(0, number), RolloutParams(max_tokens=3, seed=seed))


@asynccontextmanager
async def rollout(toy: ToyService) -> AsyncIterator[RolloutActor]:
    session = SessionActor(SERVICE, link=Link(ToyTransport(toy), flags=JSON_ONLY))
    actor = RolloutActor(SERVICE, session, link=Link(ToyTransport(toy), flags=JSON_ONLY))
    try:
        yield actor
    finally:
        await actor.aclose()
        await session.aclose()


async def test_a_group_is_run_to_its_end(toy: ToyService) -> None:
    async with rollout(toy) as actor:
        group, rest = await actor.run_group(
            CountingGroup([1, 2], size=4, num_turns=3), REFERENCE, attempt()
        )
    assert isinstance(group, TrajectoryGroup)
    assert [3, 3, 3, 3] == [len(trajectory.transitions) for trajectory in group.trajectories_G]
    assert rest is None


async def test_the_same_seed_gives_the_same_group_again(toy: ToyService) -> None:
    async with rollout(toy) as actor:
        builder = CountingGroup([1, 2], size=3, num_turns=2)
        groups = await asyncio.gather(
            *(actor.run_group(builder, REFERENCE, attempt(number)) for number in range(2))
        )
    assert groups[0] == groups[1]


async def test_an_environment_that_fails_is_told_in_a_portable_error(toy: ToyService) -> None:
    async with rollout(toy) as actor:
        with pytest.raises(RolloutFailedError, match="RuntimeError: broken") as caught:
            await actor.run_group(
                CountingGroup([1], error=RuntimeError("broken")), REFERENCE, attempt()
            )
    assert ("environment", "step") == (caught.value.kind, caught.value.stage)


class WithoutSamplers(ToyTransport):
    """Of a service that has lost its sampling sessions."""

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        if request.path.endswith("asample"):
            return Response(404, {}, b"no such sampling session")
        return await super().attempt(request, headers)


async def test_a_sampler_that_the_service_lost_is_told_by_the_kind_of_the_failure(
    toy: ToyService,
) -> None:
    session = SessionActor(SERVICE, link=Link(ToyTransport(toy), flags=JSON_ONLY))
    actor = RolloutActor(SERVICE, session, link=Link(WithoutSamplers(toy), flags=JSON_ONLY))
    with pytest.raises(RolloutFailedError, match="no such sampling session") as caught:
        await actor.run_group(CountingGroup([1]), REFERENCE, attempt())
    assert ("gone", "sample") == (caught.value.kind, caught.value.stage)
    await actor.aclose()
    await session.aclose()


class BlockingEnv(CountingEnv):
    """Computes without letting others run."""

    async def step(self, action: Action) -> StepResult:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        return await super().step(action)


@dataclass
class BlockingGroup(CountingGroup):
    async def make_envs(self) -> Sequence[Env]:
        return [BlockingEnv(self.prompt)]


async def test_an_environment_that_blocks_does_not_hold_up_the_actor(toy: ToyService) -> None:
    async with rollout(toy) as actor:
        running = asyncio.create_task(actor.run_group(BlockingGroup([1]), REFERENCE, attempt()))
        ticks = 0
        while not running.done():
            await asyncio.sleep(0)
            ticks += 1
    assert ticks > 20


async def test_cancelling_a_group_ends_its_environments(toy: ToyService) -> None:
    toy.sample_s = 1000.0
    async with rollout(toy) as actor:
        builder = CountingGroup([1])
        running = asyncio.create_task(actor.run_group(builder, REFERENCE, attempt()))
        await until(lambda: bool(toy.sampled))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: builder.num_cleanups == 1)
        assert running.cancelled()


async def test_a_lost_actor_is_not_called_again() -> None:
    class Nothing:
        async def run_group(self, *_: object) -> None: ...

    remote: Any = FakeRemote(Nothing, deaths=1)
    handle = RolloutHandle(remote)
    sampler: Any = REFERENCE
    with pytest.raises(ActorLostError):
        await handle.run_group(CountingGroup([1]), sampler, attempt())
    assert remote.killed


async def test_what_a_worker_measured_comes_with_an_answer_and_at_its_end() -> None:
    group = TrajectoryGroup([], [], [])
    meters = ToldMeters(list)
    steps = meters.get_meter("users").create_counter("steps")

    class Measuring:
        async def run_group(self, *_: object) -> tuple[Shipped, None]:
            steps.add(2)
            return Shipped(group, Shipment(measured=meters.tally.take())), None

    class Remote(FakeRemote):
        async def aclose(self, *, drain_s: float = 0.0) -> Any:  # noqa: ANN401
            await super().aclose(drain_s=drain_s)
            steps.add(1)
            return Shipment(measured=meters.tally.take())

    remote: Any = Remote(Measuring)
    here = Measured()
    handle = RolloutHandle(remote, meter_provider=here.provider)
    sampler: Any = REFERENCE
    assert group is await handle.run_group(CountingGroup([1]), sampler, attempt())
    assert [2] == [point.value for point in here.points("steps")]
    await handle.close()
    assert [3] == [point.value for point in here.points("steps")]
    here.provider.shutdown()


def test_a_sampling_client_travels_as_a_reference_and_other_samplers_as_they_are() -> None:
    class Client:
        sampling_session_id = "s"
        retry_config = RetryConfig(max_connections=3)

        record_stability_info = True

    assert SamplerRef(
        "s", RetryConfig(max_connections=3), record_stability_info=True
    ) == SamplerRef.of(Client())
    other = object()
    assert other is SamplerRef.of(other)


class Recording(ToyTransport):
    """Keeps the bodies of sampling requests."""

    def __init__(self, toy: ToyService) -> None:
        super().__init__(toy)
        self.asked: list[dict[str, Any]] = []

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        if request.path.endswith("asample"):
            self.asked.append(json.loads(request.content))
        return await super().attempt(request, headers)


async def test_an_environment_may_ask_for_all_that_a_sampling_client_gives(
    toy: ToyService,
) -> None:
    transport = Recording(toy)
    session = SessionActor(SERVICE, link=Link(ToyTransport(toy), flags=JSON_ONLY))
    sampling = HostedSampling(
        SERVICE, session, kind="rollout", actor="a", link=Link(transport, flags=JSON_ONLY)
    )
    reference = SamplerRef("toy-1:sample:0", record_stability_info=True)
    sampler = HostedSampler(sampling, reference, asyncio.get_running_loop())
    prompt, params = ModelInput.from_ints([1, 2]), SamplingParams(max_tokens=1)
    with pytest.raises(ValueError, match="include_prompt_logprobs"):
        await sampler.sample_async(prompt, 1, params, prompt_logprobs_last_n=1)
    await sampler.sample_async(
        prompt,
        2,
        params,
        include_prompt_logprobs=True,
        topk_prompt_logprobs=1,
        topk_sample_logprobs=3,
    )
    [asked] = transport.asked
    assert (2, True, 1, 3, True) == (
        asked["num_samples"],
        asked["prompt_logprobs"],
        asked["topk_prompt_logprobs"],
        asked["topk_sample_logprobs"],
        asked["record_stability_info"],
    )
    await sampling.aclose()
    await session.aclose()

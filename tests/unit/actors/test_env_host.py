from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from actors.env_host import EnvHost
from tests.fakes.blocking import MixedGroup, PlainGroup, SleepyEnv
from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.sampler import ScriptedSampler
from tests.unit.actors.conftest import until
from tinker_ray.errors import ActorLostError
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    EnvGroupBuilder,
    RolloutFailedError,
    RolloutParams,
    SamplerPolicy,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tinker_ray.rollouts import Action, Env, Metrics, StepResult, Trajectory, TrajectoryGroup

SOON_S = 0.02
POLICY = SamplerPolicy(ScriptedSampler(lambda _, row: [row + 1]), RolloutParams())
ATTEMPT = Attempt(AttemptId(0, 0), RolloutParams())


def attempt(min_episodes: int | None = None, **timeouts: float) -> Attempt:
    return replace(ATTEMPT, timeouts=Timeouts(**timeouts), min_episodes=min_episodes)


@asynccontextmanager
async def env_host(*, threads: int = 8, max_hanging: int = 32) -> AsyncIterator[EnvHost]:
    host = EnvHost("the host", threads=threads, max_hanging=max_hanging)
    try:
        yield host
    finally:
        await host.aclose()


def start(
    host: EnvHost, builder: object, attempt: Attempt = ATTEMPT
) -> asyncio.Task[TrajectoryGroup]:
    work = host.run_group(cast("EnvGroupBuilder", builder), POLICY, attempt)
    return asyncio.create_task(work)


async def entered(builder: PlainGroup, count: int) -> None:
    await until(lambda: len(builder.entered) == count)


async def test_plain_methods_run_in_threads_side_by_side_and_the_rest_goes_on() -> None:
    async with env_host() as host:
        builder = PlainGroup(size=4)
        blocked = start(host, builder)
        await entered(builder, 4)
        assert [2.0, 3.0] == (await start(host, CountingGroup([1], bonus=1))).get_total_rewards()
        builder.gate.set()
        group = await blocked
    assert [5.0, 6.0, 7.0, 8.0] == group.get_total_rewards()
    assert threading.get_ident() not in set().union(*(env.threads for env in builder.envs))
    assert ([1] * 4, 1) == ([env.num_closed for env in builder.envs], builder.num_cleanups)


async def test_more_calls_than_threads_wait_for_one() -> None:
    async with env_host(threads=2) as host:
        builder = PlainGroup(size=5)
        running = start(host, builder)
        await entered(builder, 2)
        builder.gate.set()
        assert 5 == len((await running).trajectories_G)


async def test_an_environment_loop_that_is_busy_delays_no_thread_of_the_owner() -> None:
    class Busy(CountingEnv):
        async def step(self, action: Action) -> StepResult:
            gate.wait()
            return await super().step(action)

    gate = threading.Event()
    async with env_host() as host:
        running = start(host, MixedGroup([1], size=1, others={0: Busy([1])}))
        await asyncio.sleep(0)
        gate.set()
        assert [1.0] == (await running).get_total_rewards()


@pytest.mark.parametrize(
    "stage, limits",
    [("step", Timeouts(step_s=SOON_S)), ("episode", Timeouts(episode_s=SOON_S))],
)
async def test_a_coroutine_that_takes_too_long_is_stopped_and_its_stage_named(
    stage: str, limits: Timeouts
) -> None:
    async with env_host() as host:
        builder = MixedGroup([1], size=2, others={1: SleepyEnv([1])})
        with pytest.raises(RolloutFailedError, match=r"not done within 0\.02 s") as caught:
            await start(host, builder, replace(ATTEMPT, timeouts=limits))
    assert ("timeout", stage, 1) == (caught.value.kind, caught.value.stage, builder.num_cleanups)


async def test_sampling_and_grading_and_setup_have_their_own_limits() -> None:
    class Slow(CountingGroup):
        async def make_envs(self) -> Sequence[Env]:
            if self.bonus == 0:
                await asyncio.Event().wait()
            return await super().make_envs()

        async def compute_group_rewards(
            self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
        ) -> list[tuple[float, Metrics]]:
            await asyncio.Event().wait()
            return await super().compute_group_rewards(trajectory_group, env_group)

    class Silent:
        async def sample_async(self, *_: object) -> Any:  # noqa: ANN401
            await asyncio.Event().wait()

    limits = attempt(setup_s=SOON_S, sampling_s=SOON_S, grading_s=SOON_S)
    async with env_host() as host:
        found = []
        for builder, sampler in (
            (Slow([1]), POLICY.sampler),
            (CountingGroup([1]), Silent()),
            (Slow([1], bonus=1), POLICY.sampler),
        ):
            policy = replace(POLICY, sampler=sampler)
            with pytest.raises(RolloutFailedError) as caught:
                await host.run_group(builder, policy, limits)
            found.append((caught.value.kind, caught.value.stage))
    assert [
        ("timeout", "make_envs"),
        ("timeout", "sample"),
        ("timeout", "compute_group_rewards"),
    ] == found


async def test_a_thread_that_hangs_is_a_stall_and_leaves_its_place_to_another() -> None:
    async with env_host(threads=1) as host:
        stuck, free = PlainGroup(size=1), PlainGroup(size=1)
        free.gate.set()
        with pytest.raises(RolloutFailedError, match="cannot be stopped") as caught:
            await start(host, stuck, attempt(step_s=SOON_S))
        assert ("stall", "step") == (caught.value.kind, caught.value.stage)
        assert [2.0] == (await start(host, free)).get_total_rewards()
        assert "1 abandoned" in repr(host)
        stuck.gate.set()
        await until(lambda: "0 abandoned" in repr(host))


async def test_time_that_a_call_waits_for_a_thread_is_not_counted() -> None:
    async with env_host(threads=1) as host:
        first, second = PlainGroup(size=1), PlainGroup(size=1)
        second.gate.set()
        blocked = start(host, first)
        await entered(first, 1)
        waiting = start(host, second, attempt(step_s=3 * SOON_S, setup_s=3 * SOON_S))
        done, _ = await asyncio.wait({waiting}, timeout=4 * SOON_S)
        assert set() == done
        first.gate.set()
        assert [[2.0], [2.0]] == [(await task).get_total_rewards() for task in (blocked, waiting)]


async def test_a_worker_in_which_too_much_hangs_gives_itself_up() -> None:
    async with env_host(max_hanging=1) as host:
        stuck = PlainGroup(size=1)
        for _ in range(2):
            with pytest.raises((RolloutFailedError, ActorLostError)):
                await start(host, stuck, attempt(step_s=SOON_S))
        with pytest.raises(ActorLostError, match="the host is given up: 2 threads hang"):
            await start(host, CountingGroup([1]))
        stuck.gate.set()


async def test_a_coroutine_that_blocks_the_loop_of_the_environments_ends_the_worker() -> None:
    class Blocking(CountingEnv):
        async def step(self, action: Action) -> StepResult:
            gate.wait()
            return await super().step(action)

    gate = threading.Event()
    host = EnvHost("the host", stuck_s=SOON_S)
    with pytest.raises(ActorLostError, match="blocked its event loop"):
        await start(
            host, MixedGroup([1], size=1, others={0: Blocking([1])}), attempt(step_s=SOON_S)
        )
    gate.set()
    await host.aclose()


async def test_cancelling_a_group_lets_its_blocked_call_go_and_still_cleans_up() -> None:
    async with env_host(threads=2) as host:
        builder = PlainGroup(size=2)
        running = start(host, builder)
        await entered(builder, 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        await until(lambda: builder.num_cleanups == 1)
        assert [1, 1] == [env.num_closed for env in builder.envs]
        builder.gate.set()


async def test_episodes_that_fail_are_left_out_if_enough_others_end() -> None:
    broken = CountingEnv([1], error=RuntimeError("broken"))
    builder = MixedGroup([1], size=4, bonus=10, others={1: broken, 2: SleepyEnv([1])})
    async with env_host() as host:
        group = await start(host, builder, attempt(min_episodes=2, step_s=SOON_S))
    assert [11.0, 14.0] == group.get_total_rewards()
    assert [{"members": 2}] * 2 == group.metrics_G
    assert (2, ["environment", "timeout"]) == (
        group.num_failed,
        [error.error_type for error in group.rollout_errors],
    )


async def test_a_group_of_which_too_few_episodes_end_fails_as_the_last_of_them_did() -> None:
    broken = {n: CountingEnv([1], error=RuntimeError(f"broken {n}")) for n in range(3)}
    async with env_host() as host:
        with pytest.raises(RolloutFailedError, match="broken 2"):
            await start(host, MixedGroup([1], size=4, others=broken), attempt(min_episodes=2))


async def test_an_environment_that_exits_ends_its_group_and_nothing_else() -> None:
    class Exiting(CountingEnv):
        async def step(self, action: Action) -> StepResult:
            raise SystemExit(3 if action else 0)

    class ExitingGroup(PlainGroup):
        def make_envs(self) -> Sequence[Any]:
            raise SystemExit(4)

    async with env_host() as host:
        with pytest.raises(RolloutFailedError, match="SystemExit: 3"):
            await start(host, MixedGroup([1], size=1, others={0: Exiting([1])}))
        with pytest.raises(RolloutFailedError, match="SystemExit was raised: 4"):
            await start(host, ExitingGroup())
        assert [1.0, 2.0] == (await start(host, CountingGroup([1]))).get_total_rewards()


async def test_an_environment_that_cancels_itself_has_failed() -> None:
    cancelling = CountingEnv([1], error=asyncio.CancelledError())
    async with env_host() as host:
        with pytest.raises(RolloutFailedError, match="it cancelled itself") as caught:
            await start(host, MixedGroup([1], size=2, others={1: cancelling}))
    assert "environment" == caught.value.kind


async def test_groups_of_a_worker_that_is_closed_are_lost_with_it() -> None:
    async with env_host() as host:
        builder = PlainGroup(size=1)
        running = start(host, builder)
        await entered(builder, 1)
        await host.aclose()
        with pytest.raises(ActorLostError, match="the host was closed"):
            await running
        builder.gate.set()


async def test_a_plain_method_may_give_an_awaitable() -> None:
    class Wrapped(CountingEnv):
        def step(self, action: Action) -> Any:  # noqa: ANN401
            return super().step(action)

    async with env_host() as host:
        builder = MixedGroup([1], size=1, others={0: Wrapped([1])})
        assert [1.0] == (await start(host, builder)).get_total_rewards()


async def test_cleanup_that_fails_is_logged_and_spoils_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Untidy(CountingGroup):
        async def cleanup(self) -> None:
            raise OSError("no such folder")

    async with env_host() as host:
        assert [1.0, 2.0] == (await start(host, Untidy([1]))).get_total_rewards()
    assert "Untidy.cleanup failed: OSError: no such folder" in caplog.text

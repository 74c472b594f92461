from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.sampler import ScriptedSampler, SeededSampler
from tinker_ray.errors import APIConnectionError, APIStatusError, NotFoundError
from tinker_ray.rollouts import (
    Env,
    EnvGroupBuilder,
    FailureKind,
    Metrics,
    RolloutFailedError,
    RolloutParams,
    SamplerPolicy,
    Trajectory,
    derive_seed,
    run_episode,
    run_group,
)
from tinker_ray.rollouts.datum import from_trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts import Action, ActionExtra, Logs, StepResult

PARAMS = RolloutParams(max_tokens=4, seed=7)


def echo_row(prompt: list[int], row: int) -> list[int]:
    return [row + 1]


def test_an_episode_goes_on_until_the_environment_is_done() -> None:
    policy = SamplerPolicy(ScriptedSampler(lambda prompt, _: [len(prompt)]), PARAMS)
    trajectory = asyncio.run(run_episode(policy, CountingEnv([5, 6], num_turns=3)))
    assert [(t.ob.to_ints(), t.ac.tokens, t.reward) for t in trajectory.transitions] == [
        ([5, 6], [2], 2.0),
        ([5, 6, 2, 101], [4], 4.0),
        ([5, 6, 2, 101, 4, 102], [6], 6.0),
    ]
    assert [t.episode_done for t in trajectory.transitions] == [False, False, True]
    assert trajectory.final_ob.to_ints() == [5, 6, 2, 101, 4, 102, 6, 103]


@dataclass
class LimitedEnv(CountingEnv):
    """Is told why an action ended, and has no room for its prompt if that is long."""

    heard: list[str] = field(default_factory=list)

    async def initial_observation(self) -> Any:  # noqa: ANN401 - as the cookbook's
        if len(self.prompt) > 2:
            return TooLong(reward=-0.5, metrics={"stop/max_tokens": 1.0})
        return await super().initial_observation()

    async def step(self, action: Action, *, extra: ActionExtra | None = None) -> StepResult:
        assert extra is not None
        self.heard.append(extra["stop_reason"])
        result = await super().step(action)
        if result.episode_done:
            result.metrics["stop/max_turns"] = 1.0
        return result


@dataclass
class TooLong:
    reward: float
    metrics: Metrics = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)


@dataclass
class LimitedGroup(CountingGroup):
    async def make_envs(self) -> Sequence[Env]:
        return [LimitedEnv([5]), LimitedEnv([5, 6, 7]), LimitedEnv([5])]


def test_an_environment_hears_why_an_action_ended_and_says_why_the_episode_did() -> None:
    policy = SamplerPolicy(ScriptedSampler(echo_row), PARAMS)
    env = LimitedEnv([5], num_turns=2)
    trajectory = asyncio.run(run_episode(policy, env))
    assert ["stop", "stop"] == env.heard
    assert "max_turns" == trajectory.stop_reason


def test_an_episode_whose_prompt_is_too_long_earns_without_an_action() -> None:
    sampler = ScriptedSampler(echo_row)
    group = asyncio.run(run_group(LimitedGroup([5]), SamplerPolicy(sampler, PARAMS)))
    assert [(call.prompt, call.num_samples) for call in sampler.calls] == [([5], 2)]
    assert [1.0, -0.5, 2.0] == group.get_total_rewards()
    unacted = group.trajectories_G[1]
    assert (unacted.stop_reason, unacted.transitions[0].ac.tokens) == ("max_tokens", [])
    assert [] == from_trajectory(unacted, 1.0)


def test_a_group_shares_one_request_for_equal_first_observations() -> None:
    sampler = ScriptedSampler(echo_row)
    group = asyncio.run(
        run_group(CountingGroup([5], size=4, bonus=10), SamplerPolicy(sampler, PARAMS))
    )
    assert [(call.prompt, call.num_samples) for call in sampler.calls] == [([5], 4)]
    assert group.get_total_rewards() == [11.0, 12.0, 13.0, 14.0]
    assert group.metrics_G == [{"members": 4}] * 4


def test_later_turns_are_drawn_one_by_one_with_seeds_of_their_own() -> None:
    sampler = ScriptedSampler(echo_row)
    builder = CountingGroup([5], size=2, num_turns=2)
    asyncio.run(run_group(builder, SamplerPolicy(sampler, PARAMS)))
    seeds = [call.params.seed for call in sampler.calls]
    assert seeds == [derive_seed(7, 0, 0), derive_seed(7, 1, 0), derive_seed(7, 1, 1)]


def test_no_seed_leaves_the_draws_to_chance() -> None:
    sampler = ScriptedSampler(echo_row)
    asyncio.run(run_group(CountingGroup([5]), SamplerPolicy(sampler, RolloutParams())))
    assert [call.params.seed for call in sampler.calls] == [None]


def test_episodes_with_different_observations_are_asked_separately_and_keep_their_places() -> None:
    class Mixed(CountingGroup):
        async def make_envs(self) -> list[Env]:
            return [CountingEnv([1]), CountingEnv([2]), CountingEnv([1])]

    sampler = ScriptedSampler(lambda prompt, row: [10 * prompt[0] + row])
    group = asyncio.run(run_group(Mixed([0]), SamplerPolicy(sampler, PARAMS)))
    assert group.get_total_rewards() == [10.0, 20.0, 11.0]
    assert [(call.prompt, call.num_samples) for call in sampler.calls] == [([1], 2), ([2], 1)]


def test_the_same_seed_gives_the_same_group_and_another_one_another() -> None:
    def rewards(seed: int) -> list[float]:
        policy = SamplerPolicy(SeededSampler(), RolloutParams(seed=seed))
        group = asyncio.run(run_group(CountingGroup([5], size=8, num_turns=2), policy))
        return group.get_total_rewards()

    assert rewards(1) == rewards(1)
    assert rewards(1) != rewards(2)


def test_an_error_in_an_environment_is_told_with_its_stage_and_survives_pickling() -> None:
    builder = CountingGroup([5], error=ValueError("no such\nfile"))
    with pytest.raises(RolloutFailedError) as caught:
        asyncio.run(run_group(builder, SamplerPolicy(ScriptedSampler(echo_row), PARAMS)))
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (copy.kind, copy.stage, copy.detail) == (
        "environment",
        "step",
        "ValueError: no such file",
    )
    assert builder.num_cleanups == 1


def test_a_lost_connection_while_sampling_is_infrastructure() -> None:
    def unreachable(prompt: list[int], row: int) -> list[int]:
        raise APIConnectionError

    policy = SamplerPolicy(ScriptedSampler(unreachable), PARAMS)
    with pytest.raises(RolloutFailedError) as caught:
        asyncio.run(run_group(CountingGroup([5]), policy))
    assert (caught.value.kind, caught.value.stage) == ("infrastructure", "sample")


@pytest.mark.parametrize("gone", [NotFoundError("no such"), APIStatusError("", status_code=410)])
def test_a_sampler_that_is_gone_is_told_from_what_an_environment_misses(
    gone: APIStatusError,
) -> None:
    def missing(prompt: list[int], row: int) -> list[int]:
        raise gone

    def kind(builder: CountingGroup, sampler: ScriptedSampler) -> FailureKind:
        with pytest.raises(RolloutFailedError) as caught:
            asyncio.run(run_group(builder, SamplerPolicy(sampler, PARAMS)))
        return caught.value.kind

    assert "gone" == kind(CountingGroup([5]), ScriptedSampler(missing))
    assert "request" == kind(CountingGroup([5], error=gone), ScriptedSampler(echo_row))


def test_cleanup_runs_after_a_group_that_succeeded() -> None:
    builder = CountingGroup([5])
    asyncio.run(run_group(builder, SamplerPolicy(ScriptedSampler(echo_row), PARAMS)))
    assert builder.num_cleanups == 1


def test_environments_need_no_base_class() -> None:
    class Bare:
        async def make_envs(self) -> list[Env]:
            return [CountingEnv([1])]

        async def compute_group_rewards(
            self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
        ) -> list[tuple[float, Metrics]]:
            return [(float(len(env_group)), {}) for _ in trajectory_group]

        def logging_tags(self) -> list[str]:
            return []

    assert isinstance(Bare(), EnvGroupBuilder)
    assert isinstance(CountingEnv([1]), Env)
    group = asyncio.run(run_group(Bare(), SamplerPolicy(ScriptedSampler(echo_row), PARAMS)))
    assert group.get_total_rewards() == [2.0]


def test_a_builder_that_defines_only_make_envs_inherits_the_rest() -> None:
    class Minimal(EnvGroupBuilder):
        async def make_envs(self) -> list[Env]:
            return [CountingEnv([1]), CountingEnv([1])]

    group = asyncio.run(run_group(Minimal(), SamplerPolicy(ScriptedSampler(echo_row), PARAMS)))
    assert (group.final_rewards_G, group.metrics_G) == ([0.0, 0.0], [{}, {}])
    assert Minimal().logging_tags() == []


def test_rewards_that_do_not_match_the_episodes_are_the_builders_failure() -> None:
    class Sloppy(CountingGroup):
        async def compute_group_rewards(
            self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
        ) -> list[tuple[float, Metrics]]:
            rewards = await super().compute_group_rewards(trajectory_group, env_group)
            return rewards[:1]

    policy = SamplerPolicy(ScriptedSampler(echo_row), PARAMS)
    with pytest.raises(RolloutFailedError, match="1 rewards for 2 trajectories"):
        asyncio.run(run_group(Sloppy([5], size=2), policy))

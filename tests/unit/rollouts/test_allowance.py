from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.sampler import ScriptedSampler
from tinker_ray.rollouts import Env, RolloutParams, SamplerPolicy, run_group
from tinker_ray.rollouts.allowance import UNBOUNDED, Allowance, allowance_of
from tinker_ray.rollouts.host import LimitReachedError, OneByOne

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tinker_ray.rollouts import TrajectoryGroup

PARAMS = RolloutParams(max_tokens=4, seed=7)


@dataclass
class LimitedEnv(CountingEnv):
    """A counting environment with the cookbook's attribute."""

    rollout_limits: Any = None
    told: list[int] = field(default_factory=list)

    def set_max_tool_calls(self, limit: int) -> None:
        self.told.append(limit)


@dataclass
class LimitedGroup(CountingGroup):
    limits: tuple[Any, ...] = ()
    envs: list[LimitedEnv] = field(default_factory=list)

    async def make_envs(self) -> Sequence[Env]:
        self.envs = [
            LimitedEnv(self.prompt, self.num_turns, rollout_limits=each) for each in self.limits
        ]
        return self.envs


def one(_prompt: list[int], _row: int) -> list[int]:
    return [1]


def run(
    *limits: object, prompt: int = 2, num_turns: int = 9
) -> tuple[TrajectoryGroup, ScriptedSampler]:
    """Play an episode for each of the limits; an action is one token, each observation adds one."""
    sampler = ScriptedSampler(one)
    builder = LimitedGroup([5] * prompt, num_turns=num_turns, limits=limits)
    return asyncio.run(run_group(builder, SamplerPolicy(sampler, PARAMS))), sampler


def limits(**given: object) -> SimpleNamespace:
    return SimpleNamespace(**given)


def test_an_episode_ends_after_its_turns_with_the_reason() -> None:
    group, _ = run(limits(max_turns=2))
    [trajectory] = group.trajectories_G
    assert ("max_turns", 2) == (trajectory.stop_reason, len(trajectory.transitions))
    last = trajectory.transitions[-1]
    assert (True, {"turn": 2, "stop/max_turns": 1.0}) == (last.episode_done, last.metrics)
    assert [2.0] == group.get_total_rewards()


@pytest.mark.parametrize(
    "given,turns,reason",
    [
        ({"max_trajectory_tokens": 7}, 2, "max_tokens"),
        ({"max_sampled_tokens": 4}, 3, "max_sampled_tokens"),
        ({"max_turn_tokens": 1}, 9, None),
        ({"max_turns": 20}, 9, None),
        ({}, 9, None),
    ],
)
def test_an_episode_ends_when_there_is_no_room_for_an_action(
    given: dict[str, int], turns: int, reason: str | None
) -> None:
    group, _ = run(limits(**given))
    [trajectory] = group.trajectories_G
    assert (turns, reason) == (len(trajectory.transitions), trajectory.stop_reason)


def test_an_action_is_no_longer_than_there_is_room() -> None:
    _, sampler = run(limits(max_trajectory_tokens=8, max_turn_tokens=3))
    assert [3, 3, 2] == [call.params.max_tokens for call in sampler.calls]


def test_episodes_with_other_limits_do_not_share_a_draw() -> None:
    _, sampler = run(limits(max_turn_tokens=1), None, limits(max_turn_tokens=1), num_turns=1)
    assert [(1, 2), (4, 1)] == [
        (call.params.max_tokens, call.num_samples) for call in sampler.calls
    ]


def test_a_prompt_without_room_for_an_action_ends_the_episode_before_it_begins() -> None:
    group, sampler = run(limits(max_trajectory_tokens=3))
    [trajectory] = group.trajectories_G
    assert [] == sampler.calls
    assert ("max_tokens", [], [5, 5]) == (
        trajectory.stop_reason,
        trajectory.transitions[0].ac.tokens,
        trajectory.final_ob.to_ints(),
    )


class Impatient(OneByOne):
    """Lets everything that has a limit of 5 s run out of time after its second turn."""

    num_calls = 0

    async def call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        self.num_calls += method.__name__ == "step"
        if self.num_calls == 3 and method.__name__ == "step":
            raise OutOfTimeError
        return await super().call(method, *arguments, **keywords)

    async def within(self, work: Awaitable[Any], limit_s: float | None) -> Any:  # noqa: ANN401
        assert limit_s == 5
        try:
            return await work
        except OutOfTimeError:
            raise LimitReachedError(5) from None


class OutOfTimeError(BaseException):
    """Cancels, as far as this host is concerned."""


def test_an_episode_that_runs_out_of_its_own_time_keeps_its_turns() -> None:
    builder = LimitedGroup([5], num_turns=9, limits=(limits(rollout_timeout_seconds=5),))
    policy = SamplerPolicy(ScriptedSampler(one), PARAMS)
    group = asyncio.run(run_group(builder, policy, host=Impatient()))
    [trajectory] = group.trajectories_G
    assert ("rollout_timeout", 2) == (trajectory.stop_reason, len(trajectory.transitions))
    assert [2.0] == group.get_total_rewards()


def test_an_environment_is_told_its_limit_of_tool_calls() -> None:
    sampler = ScriptedSampler(one)
    builder = LimitedGroup([5], limits=(limits(max_tool_calls=3), None))
    asyncio.run(run_group(builder, SamplerPolicy(sampler, PARAMS)))
    assert [[3], []] == [env.told for env in builder.envs]


def test_without_limits_everything_is_allowed() -> None:
    assert UNBOUNDED is allowance_of(CountingEnv([1]))
    assert UNBOUNDED.exhausted(turns=10**6, observed=10**6, sampled=10**6) is None
    assert UNBOUNDED.action_tokens(observed=10**6, sampled=0) is None


COUNTS = st.one_of(st.none(), st.integers(1, 50))


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 60), st.integers(0, 60))
def test_an_action_that_is_drawn_has_room_for_more_than_a_token(
    turn: int | None, trajectory: int | None, sampled: int | None, observed: int, drawn: int
) -> None:
    allowance = Allowance(turn_tokens=turn, trajectory_tokens=trajectory, sampled_tokens=sampled)
    room = allowance.action_tokens(observed=observed, sampled=drawn)
    if allowance.exhausted(turns=0, observed=observed, sampled=drawn) is None and room is not None:
        assert room >= 2 or room == turn
        assert turn is None or room <= turn

"""Episodes and groups of them: observation, action, step, until the environment is done.

Knows nothing of event loops: how many coroutines are run at once is an argument. Invariant:
episodes of a group that begin with the same observation share one sampling request for their first
action.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from tinker_ray.errors import TinkerError
from tinker_ray.rollouts.env import ActionExtra
from tinker_ray.rollouts.failure import RolloutFailedError, as_rollout_failure, describe
from tinker_ray.rollouts.trajectory import (
    Observation,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
)
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from tinker_ray.rollouts.env import Env, EnvGroupBuilder, Overflow, Start, StopCondition
    from tinker_ray.rollouts.policy import Policy
    from tinker_ray.rollouts.trajectory import Metrics

T = TypeVar("T")
P = ParamSpec("P")

STOP_METRIC = "stop/"
"""Begins the metric by which an environment says why an episode ended: ``stop/max_turns``."""


class Together(Protocol):
    """Runs coroutines, at once or one by one, and returns their results in the given order."""

    async def __call__(self, coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
        """Return all results; after the first failure cancel the others and raise it."""
        ...


async def one_by_one(coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
    """Run coroutines in turn."""
    results: list[T] = []
    waiting = list(coroutines)
    try:
        while waiting:
            results.append(await waiting.pop(0))
    finally:
        for coroutine in waiting:
            coroutine.close()
    return results


async def run_episode(
    policy: Policy,
    env: Env,
    *,
    start: Start | None = None,
    first_action: TokensWithLogprobs | None = None,
    lane: int = 0,
) -> Trajectory:
    """Run one episode to its end.

    Args:
        policy: Draws the actions.
        env: A fresh environment.
        start: Its initial observation and stop condition (or the lack of them), if already asked
            for.
        first_action: The action of the first turn, if already drawn.
        lane: The episode's place in its group.

    Raises:
        RolloutFailedError: The environment or the policy raised.
    """
    with span(names.ROLLOUT_EPISODE, attributes={names.EPISODE: lane}):
        start = start or await _first_observation(env)
        if not isinstance(start, tuple):
            return _unacted(start)
        return await _take_turns(policy, env, start, first_action, lane)


async def _take_turns(
    policy: Policy,
    env: Env,
    start: tuple[Observation, StopCondition],
    action: TokensWithLogprobs | None,
    lane: int,
) -> Trajectory:
    observation, stop = start
    transitions: list[Transition] = []
    tells_more = _takes_extra(env)
    while True:
        if action is None:
            [action] = await _draw(policy, (observation, stop), turn=len(transitions), lane=lane)
        with span(names.ENV_STEP, attributes={names.TURN: len(transitions)}):
            more = {"extra": ActionExtra(stop_reason=action.stop_reason)} if tells_more else {}
            result = await _ask("step", env.step, action.tokens, **more)
        transitions.append(
            Transition(
                ob=observation,
                ac=action,
                reward=result.reward,
                episode_done=result.episode_done,
                metrics=result.metrics,
                logs=result.logs,
            )
        )
        observation, stop, action = result.next_observation, result.next_stop_condition, None
        if result.episode_done:
            return Trajectory(transitions, observation, _stop_reason(result.metrics))


def _unacted(overflow: Overflow) -> Trajectory:
    """Make an episode of one turn without tokens: it earns, but nothing is learnt from it."""
    nothing = ModelInput.from_ints([])
    turn = Transition(
        ob=nothing,
        ac=TokensWithLogprobs([], []),
        reward=overflow.reward,
        episode_done=True,
        metrics=overflow.metrics,
        logs=overflow.logs,
    )
    return Trajectory([turn], nothing, _stop_reason(overflow.metrics))


def _takes_extra(env: Env) -> bool:
    try:
        return "extra" in inspect.signature(env.step).parameters
    except (TypeError, ValueError):  # callables that do not tell
        return False


def _stop_reason(metrics: Metrics) -> str | None:
    marks = (key for key in metrics if key.startswith(STOP_METRIC))
    return next((mark.removeprefix(STOP_METRIC) for mark in marks), None)


async def run_group(
    builder: EnvGroupBuilder, policy: Policy, *, together: Together = one_by_one
) -> TrajectoryGroup:
    """Build a group's environments, run an episode in each and ask for the group's rewards.

    Raises:
        RolloutFailedError: The environment or the policy raised.
    """
    try:
        envs = await _ask("make_envs", builder.make_envs)
        starts = await together([_first_observation(env) for env in envs])
        actions = await _first_actions(policy, starts, together)
        trajectories = await together(
            [
                run_episode(policy, env, start=start, first_action=action, lane=lane)
                for lane, (env, start, action) in enumerate(zip(envs, starts, actions, strict=True))
            ]
        )
        rewards = await _ask(
            "compute_group_rewards", builder.compute_group_rewards, trajectories, envs
        )
    finally:
        cleanup = getattr(builder, "cleanup", None)
        if cleanup is not None:
            await _ask("cleanup", cleanup)
    return TrajectoryGroup(
        trajectories, [reward for reward, _ in rewards], [metrics for _, metrics in rewards]
    )


async def _first_observation(env: Env) -> Start:
    return await _ask("initial_observation", env.initial_observation)


async def _first_actions(
    policy: Policy, starts: Sequence[Start], together: Together
) -> list[TokensWithLogprobs | None]:
    prompts = {lane: start for lane, start in enumerate(starts) if isinstance(start, tuple)}
    lanes_by_start: list[list[int]] = []
    for lane, prompt in prompts.items():
        lanes = next((lanes for lanes in lanes_by_start if prompts[lanes[0]] == prompt), None)
        if lanes is None:
            lanes_by_start.append([lane])
        else:
            lanes.append(lane)
    drawn = await together(
        [
            _draw(policy, prompts[lanes[0]], turn=0, lane=lanes[0], num_samples=len(lanes))
            for lanes in lanes_by_start
        ]
    )
    by_lane = {
        lane: action
        for lanes, actions in zip(lanes_by_start, drawn, strict=True)
        for lane, action in zip(lanes, actions, strict=True)
    }
    return [by_lane.get(lane) for lane in range(len(starts))]


async def _draw(
    policy: Policy,
    prompt: tuple[Observation, StopCondition],
    *,
    turn: int,
    lane: int,
    num_samples: int = 1,
) -> list[TokensWithLogprobs]:
    try:
        return await policy.act(*prompt, num_samples=num_samples, turn=turn, lane=lane)
    except Exception as error:  # the border to whatever samples
        raise as_rollout_failure(error, stage="sample") from error


async def _ask(
    stage: str, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    try:
        return await method(*args, **kwargs)
    except TinkerError as error:  # an environment that calls the service itself
        raise as_rollout_failure(error, stage=stage) from error
    except Exception as error:  # the border to the user's code
        raise RolloutFailedError(kind="environment", stage=stage, detail=describe(error)) from error

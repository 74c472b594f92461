"""Episodes: observation, action, step, until the environment is done; each stage in its time.

Knows nothing of event loops or threads: a host carries the calls out. Invariant: what leaves here
is a trajectory or a :class:`RolloutFailedError` that names the stage.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tinker_ray.errors import TinkerError
from tinker_ray.rollouts.allowance import ROLLOUT_TIMEOUT, allowance_of, tell_tool_calls
from tinker_ray.rollouts.course import Course, without_a_turn
from tinker_ray.rollouts.env import ActionExtra
from tinker_ray.rollouts.failure import (
    SAMPLE,
    FailureKind,
    RolloutFailedError,
    as_rollout_failure,
    describe,
)
from tinker_ray.rollouts.host import ONE_BY_ONE, Host, LimitReachedError
from tinker_ray.rollouts.trajectory import TokensWithLogprobs, Trajectory
from tinker_ray.rollouts.worker import UNLIMITED, Timeouts
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tinker_ray.rollouts.env import Env, Start, StepResult
    from tinker_ray.rollouts.policy import Policy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stages:
    """Carries out the stages of a group, each in its time and with its failures named.

    Attributes:
        policy: Draws the actions.
        host: Carries out the calls.
        timeouts: How long they may take.
    """

    policy: Policy
    host: Host = ONE_BY_ONE
    timeouts: Timeouts = UNLIMITED

    async def ask(
        self,
        stage: str,
        method: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - of the user's method
        limit_s: float | None,
        **keywords: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call a method of the user's.

        Raises:
            RolloutFailedError: It raised, or took too long.
        """
        try:
            return await self.host.call(method, *arguments, limit_s=limit_s, **keywords)
        except TinkerError as error:  # an environment that calls the service itself
            raise as_rollout_failure(error, stage=stage) from error
        except LimitReachedError as error:
            raise _out_of_time(stage, error) from None
        except (Exception, SystemExit) as error:  # the border to the user's code
            raise RolloutFailedError(
                kind="environment", stage=stage, detail=describe(error)
            ) from error

    async def first_observation(self, env: Env) -> Start:
        """Ask an environment how it begins."""
        limit_s = self.timeouts.setup_s
        tell_tool_calls(env)
        start: Start = await self.ask(
            "initial_observation", env.initial_observation, limit_s=limit_s
        )
        return start

    async def draw(
        self, course: Course, *, lane: int, num_samples: int = 1
    ) -> list[TokensWithLogprobs]:
        """Draw the next action of an episode, or of several that have come as far.

        Args:
            course: Of the episode.
            lane: The first episode's place in its group.
            num_samples: How many episodes there are.

        Raises:
            RolloutFailedError: The sampler raised, or took too long.
        """
        work = self.policy.act(
            course.observation,
            course.stop,
            num_samples=num_samples,
            turn=len(course.transitions),
            lane=lane,
            max_tokens=course.action_tokens,
        )
        limit_s = course.allowance.draw_s
        limits = [limit for limit in (limit_s, self.timeouts.sampling_s) if limit is not None]
        try:
            return await self._limited(work, min(limits, default=None))
        except LimitReachedError as error:
            raise _out_of_time(SAMPLE, error) from None
        except Exception as error:  # the border to whatever samples
            raise as_rollout_failure(error, stage=SAMPLE) from error

    async def step(self, env: Env, action: TokensWithLogprobs) -> StepResult:
        """Let an environment answer an action."""
        limit_s = self.timeouts.step_s
        tells_more = takes_extra(type(env))
        extra = {"extra": ActionExtra(stop_reason=action.stop_reason)} if tells_more else {}
        result: StepResult = await self.ask(
            "step", env.step, action.tokens, limit_s=limit_s, **extra
        )
        return result

    async def episode(
        self, env: Env, start: Start, action: TokensWithLogprobs | None = None, lane: int = 0
    ) -> Trajectory:
        """Run an episode to its end.

        Args:
            env: A fresh environment.
            start: How it begins.
            action: The action of the first turn, if already drawn.
            lane: The episode's place in its group.

        Raises:
            RolloutFailedError: The environment or the policy raised, or something took too long.
        """
        with span(names.ROLLOUT_EPISODE, attributes={names.EPISODE: lane}):
            if not isinstance(start, tuple):
                return without_a_turn(start)
            course = Course(*start, allowance=allowance_of(env))
            try:
                return await self._limited(
                    self._run(env, course, action, lane), self.timeouts.episode_s
                )
            except LimitReachedError as error:
                raise _out_of_time("episode", error) from None

    async def _run(
        self, env: Env, course: Course, action: TokensWithLogprobs | None, lane: int
    ) -> Trajectory:
        """Take turns for as long as the environment allows, by its own limits."""
        turns = self._take_turns(env, course, action, lane)
        try:
            return await self._limited(turns, course.allowance.episode_s)
        except LimitReachedError:
            return course.cut_short(ROLLOUT_TIMEOUT)

    async def _take_turns(
        self, env: Env, course: Course, action: TokensWithLogprobs | None, lane: int
    ) -> Trajectory:
        while True:
            if action is None:
                reason = course.limit_reached
                if reason is not None:
                    return course.cut_short(reason)
                [action] = await self.draw(course, lane=lane)
            with span(names.ENV_STEP, attributes={names.TURN: len(course.transitions)}):
                result = await self.step(env, action)
            course.take(action, result)
            action = None
            if result.episode_done:
                return course.ended()

    async def _limited(self, work: Awaitable[T], limit_s: float | None) -> T:
        return await (work if limit_s is None else self.host.within(work, limit_s))


async def run_episode(
    policy: Policy, env: Env, *, host: Host = ONE_BY_ONE, timeouts: Timeouts = UNLIMITED
) -> Trajectory:
    """Run one episode, from its first observation on.

    Args:
        policy: Draws the actions.
        env: A fresh environment.
        host: Carries out the calls; by default here, one by one and without time limits.
        timeouts: How long each stage may take.

    Raises:
        RolloutFailedError: The environment or the policy raised, or something took too long.
    """
    stages = Stages(policy, host, timeouts)
    return await stages.episode(env, await stages.first_observation(env))


@functools.lru_cache(maxsize=256)
def takes_extra(kind: type[Any]) -> bool:
    """Tell whether the environments of a class want to know more of an action than its tokens."""
    try:
        parameters = inspect.signature(kind.step).parameters.values()
    except (AttributeError, TypeError, ValueError):  # no method that can be looked at
        return False
    return any(
        parameter.name == "extra" and parameter.kind is not parameter.POSITIONAL_ONLY
        for parameter in parameters
    )


def _out_of_time(stage: str, error: LimitReachedError) -> RolloutFailedError:
    kind: FailureKind = "stall" if error.hangs else "timeout"
    return RolloutFailedError(kind=kind, stage=stage, detail=str(error))

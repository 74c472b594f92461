"""Groups of episodes: environments are built, run side by side, graded together and cleaned up.

Knows nothing of event loops or threads: a host carries the calls out. Invariants: episodes that
begin with the same observation share one sampling request for their first action; whatever becomes
of a group, its builder's and its environments' ``cleanup`` run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinker_ray.rollouts.allowance import allowance_of
from tinker_ray.rollouts.course import Course
from tinker_ray.rollouts.episode import Stages
from tinker_ray.rollouts.failure import RolloutFailedError, describe
from tinker_ray.rollouts.host import ONE_BY_ONE, Host
from tinker_ray.rollouts.trajectory import (
    Metrics,
    RolloutError,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
)
from tinker_ray.rollouts.worker import UNLIMITED, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tinker_ray.rollouts.env import Env, EnvGroupBuilder, Start
    from tinker_ray.rollouts.policy import Policy

logger = logging.getLogger(__name__)

CLEANUP_S = 30.0
"""How long each cleanup may take."""


async def run_group(
    builder: EnvGroupBuilder,
    policy: Policy,
    *,
    host: Host = ONE_BY_ONE,
    timeouts: Timeouts = UNLIMITED,
    min_episodes: int | None = None,
) -> TrajectoryGroup:
    """Build a group's environments, run an episode in each and ask for the group's rewards.

    Args:
        builder: Of the group.
        policy: Draws the actions.
        host: Carries out the calls; by default here, one by one and without time limits.
        timeouts: How long each stage may take.
        min_episodes: Episodes that fail are left out if so many others come to their end; None
            wants all, and the first failure ends the group.

    Raises:
        RolloutFailedError: The environments or the policy raised, or something took too long.
    """
    group = _Group(builder, Stages(policy, host, timeouts), min_episodes)
    try:
        return await group.run()
    finally:
        await host.to_the_end(group.clean_up())


@dataclass(slots=True)
class _Lane:
    """One episode of a group: what there is of it so far, or why there is no more."""

    number: int
    env: Env
    start: Start | None = None
    course: Course | None = None
    action: TokensWithLogprobs | None = None
    trajectory: Trajectory | None = None
    failure: RolloutFailedError | None = None


class _Group:
    def __init__(self, builder: EnvGroupBuilder, stages: Stages, min_episodes: int | None) -> None:
        self._builder = builder
        self._stages = stages
        self._min_episodes = min_episodes
        self._lanes: list[_Lane] = []
        self._tolerates = False

    async def run(self) -> TrajectoryGroup:
        stages, timeouts = self._stages, self._stages.timeouts
        envs = await stages.ask("make_envs", self._builder.make_envs, limit_s=timeouts.setup_s)
        self._lanes = [_Lane(number, env) for number, env in enumerate(envs)]
        self._tolerates = self._min_episodes is not None and self._min_episodes < len(self._lanes)
        together = stages.host.together
        await together([self._tried(self._begin, lane) for lane in self._lanes])
        await together([self._tried(self._first_actions, *lanes) for lanes in self._by_start()])
        await together([self._tried(self._play, lane) for lane in self._living()])
        return await self._graded()

    async def clean_up(self) -> None:
        """Close the environments and clean up the builder; failures are logged and no more."""
        targets: list[Any] = [*(lane.env for lane in self._lanes), self._builder]
        methods = (_cleanup_of(target) for target in targets[:-1])
        closing = [self._clean(method) for method in methods if method is not None]
        await self._stages.host.together(closing)
        method = getattr(self._builder, "cleanup", None)
        if callable(method):
            await self._clean(method)

    def _living(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane.failure is None]

    async def _tried(self, part: Callable[..., Coroutine[Any, Any, None]], *lanes: _Lane) -> None:
        """Do a part of some episodes; if the group can do without them, a failure is theirs."""
        try:
            await part(*lanes)
        except RolloutFailedError as failure:
            if not self._tolerates:
                raise
            for lane in lanes:
                lane.failure = failure
            if len(self._living()) < (self._min_episodes or 0):
                raise

    async def _begin(self, lane: _Lane) -> None:
        lane.start = await self._stages.first_observation(lane.env)
        if isinstance(lane.start, tuple):
            lane.course = Course(*lane.start, allowance=allowance_of(lane.env))

    def _by_start(self) -> list[list[_Lane]]:
        """Gather the lanes whose first action is drawn with one request."""
        gathered: list[list[_Lane]] = []
        for lane in self._living():
            if lane.course is None or lane.course.limit_reached is not None:
                continue
            lanes = next((lanes for lanes in gathered if lanes[0].course == lane.course), None)
            if lanes is None:
                gathered.append([lane])
            else:
                lanes.append(lane)
        return gathered

    async def _first_actions(self, *lanes: _Lane) -> None:
        course = lanes[0].course
        assert course is not None  # noqa: S101 - only such lanes are gathered
        actions = await self._stages.draw(course, lane=lanes[0].number, num_samples=len(lanes))
        for lane, action in zip(lanes, actions, strict=True):
            lane.action = action

    async def _play(self, lane: _Lane) -> None:
        assert lane.start is not None  # noqa: S101 - it has begun
        lane.trajectory = await self._stages.episode(
            lane.env, lane.start, lane.action, lane=lane.number
        )

    async def _graded(self) -> TrajectoryGroup:
        done = [(lane.env, lane.trajectory) for lane in self._lanes if lane.trajectory is not None]
        trajectories = [trajectory for _, trajectory in done]
        rewards: list[tuple[float, Metrics]] = await self._stages.ask(
            "compute_group_rewards",
            self._builder.compute_group_rewards,
            trajectories,
            [env for env, _ in done],
            limit_s=self._stages.timeouts.grading_s,
        )
        if len(rewards) != len(trajectories):
            detail = f"{len(rewards)} rewards for {len(trajectories)} trajectories"
            raise RolloutFailedError(
                kind="environment", stage="compute_group_rewards", detail=detail
            )
        failures = [lane.failure for lane in self._lanes if lane.failure is not None]
        return TrajectoryGroup(
            trajectories,
            [reward for reward, _ in rewards],
            [metrics for _, metrics in rewards],
            [RolloutError(failure.kind, str(failure)) for failure in failures],
        )

    async def _clean(self, method: Callable[[], Any]) -> None:
        try:
            await self._stages.host.call(method, limit_s=CLEANUP_S)
        except Exception as error:  # noqa: BLE001 - the border to the user's code
            logger.warning(
                "%s failed: %s", getattr(method, "__qualname__", method), describe(error)
            )


def _cleanup_of(env: object) -> Callable[[], Any] | None:
    for name in ("cleanup", "close"):
        method = getattr(env, name, None)
        if callable(method):
            found: Callable[[], Any] = method
            return found
    return None

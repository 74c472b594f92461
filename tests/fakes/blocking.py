"""Environments with plain methods, which block until a test lets them go on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.environment import CountingEnv, CountingGroup
from tinker_ray.rollouts import StepResult
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts import Action, Metrics, Observation, StopCondition, Trajectory


@dataclass
class PlainEnv:
    """An environment without a coroutine; each step waits for the gate and notes its thread."""

    gate: threading.Event
    entered: list[PlainEnv]
    threads: set[int] = field(default_factory=set)
    num_closed: int = 0

    def initial_observation(self) -> tuple[Observation, StopCondition]:
        self.threads.add(threading.get_ident())
        return ModelInput.from_ints([1]), None

    def step(self, action: Action) -> StepResult:
        self.threads.add(threading.get_ident())
        self.entered.append(self)
        self.gate.wait()
        return StepResult(float(sum(action)), True, ModelInput.from_ints([2]), None)  # noqa: FBT003

    def close(self) -> None:
        self.num_closed += 1


@dataclass
class PlainGroup:
    """A builder of plain environments, with plain methods itself."""

    size: int = 2
    gate: threading.Event = field(default_factory=threading.Event)
    entered: list[PlainEnv] = field(default_factory=list)
    envs: list[PlainEnv] = field(default_factory=list)
    num_cleanups: int = 0

    def make_envs(self) -> Sequence[Any]:
        self.envs = [PlainEnv(self.gate, self.entered) for _ in range(self.size)]
        return self.envs

    def compute_group_rewards(
        self, trajectory_group: list[Trajectory], env_group: Sequence[Any]
    ) -> list[tuple[float, Metrics]]:
        return [(float(len(env_group)), {}) for _ in trajectory_group]

    def logging_tags(self) -> list[str]:
        return []

    def cleanup(self) -> None:
        self.num_cleanups += 1


@dataclass
class SleepyEnv(CountingEnv):
    """An environment whose steps never end, but may be cancelled."""

    async def step(self, action: Action) -> StepResult:
        await asyncio.Event().wait()
        return await super().step(action)


@dataclass
class MixedGroup(CountingGroup):
    """Counting environments, of which those with the given numbers are replaced by others."""

    others: dict[int, Any] = field(default_factory=dict)

    async def make_envs(self) -> Sequence[Any]:
        envs = await super().make_envs()
        return [self.others.get(number, env) for number, env in enumerate(envs)]

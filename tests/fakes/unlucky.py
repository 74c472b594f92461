"""Environments that raise or hang by chance, and workers that die by chance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.fakes.environment import CountingEnv
from tinker_ray.errors import ActorLostError
from tinker_ray.rl.worker import LocalWorker
from tinker_ray.rollouts import Env, EnvGroupBuilder, StepResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts import Action, Attempt, Sampler, TrajectoryGroup


class HangingEnv(CountingEnv):
    """Never answers an action."""

    async def step(self, action: Action) -> StepResult:
        await asyncio.Event().wait()
        return await super().step(action)


@dataclass
class UnluckyGroup(EnvGroupBuilder):
    """A group of which one environment raises, or hangs, with the given chances.

    Chance comes anew with each attempt, and cannot be repeated.
    """

    number: int
    size: int
    raises: float
    hangs: float

    async def make_envs(self) -> Sequence[Env]:
        luck, prompt = Random().random(), [self.number % 100]
        envs = [CountingEnv(prompt) for _ in range(self.size)]
        if luck < self.raises:
            envs[0].error = KeyError("bad luck")
        elif luck < self.raises + self.hangs:
            envs[0] = HangingEnv(prompt)
        return envs


class MortalWorker(LocalWorker):
    """A worker of this process that dies at a group's start with the given chance.

    All that it runs is gone then, as with a process that is killed.
    """

    def __init__(self, chance: float, luck: Random) -> None:
        super().__init__()
        self._chance = chance
        self._luck = luck
        self._dying: asyncio.Task[None] | None = None

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        if self._dying is None and self._luck.random() < self._chance:
            self._dying = asyncio.create_task(self.close())
        if self._dying is not None:
            await asyncio.shield(self._dying)
            raise ActorLostError("killed", actor="rollout")
        return await super().run_group(builder, sampler, attempt)

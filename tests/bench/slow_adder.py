"""The demo's sums in an environment that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tinker_ray.rl.adder import AdderEnv, AdderGroup, Tokenizer
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.train import find_dataset
from tinker_ray.rollouts import Action, Dataset, Env, EnvGroupBuilder, StepResult

STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class SlowEnv(AdderEnv):
    """Waits before it compares, as for a tool or a judge elsewhere."""

    async def step(self, action: Action) -> StepResult:
        await asyncio.sleep(STEP_S)
        return await AdderEnv.step(self, action)


@dataclass(frozen=True)
class SlowGroup(AdderGroup):
    """The same question to ``size`` slow episodes."""

    async def make_envs(self) -> Sequence[Env]:
        return [SlowEnv(self.prompt, self.answer) for _ in range(self.size)]


@dataclass(frozen=True)
class SlowDataset:
    """The problems of another dataset; training takes longer, evaluation does not."""

    adder: Dataset

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        groups = self.adder.batch(step)
        return [
            SlowGroup(group.prompt, group.answer, group.size)
            for group in groups
            if isinstance(group, AdderGroup)
        ]

    def held_out(self) -> list[EnvGroupBuilder]:
        return list(self.adder.held_out())


def dataset(config: RunConfig, tokenizer: Tokenizer) -> SlowDataset:
    """Make the dataset that the settings ask for."""
    return SlowDataset(find_dataset("adder")(config, tokenizer))

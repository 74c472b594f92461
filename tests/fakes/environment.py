"""Small environments: count to a number of turns, and break on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.rollouts import Env, EnvGroupBuilder, StepResult, StopCondition
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts import Action, Metrics, Observation, Trajectory


@dataclass
class CountingEnv:
    """Asks ``num_turns`` times; each turn earns the sum of the action's tokens.

    With ``rewrite`` every prompt is new, else each prompt extends the conversation.
    """

    prompt: list[int]
    num_turns: int = 1
    rewrite: bool = False
    error: BaseException | None = None
    _history: list[int] = field(default_factory=list)
    _turn: int = 0

    async def initial_observation(self) -> tuple[Observation, StopCondition]:
        self._history = list(self.prompt)
        return ModelInput.from_ints(list(self._history)), None

    async def step(self, action: Action) -> StepResult:
        if self.error is not None:
            raise self.error
        self._turn += 1
        if self.rewrite:
            self._history = [90 + self._turn, *self.prompt]
        else:
            self._history += [*action, 100 + self._turn]
        return StepResult(
            reward=float(sum(action)),
            episode_done=self._turn == self.num_turns,
            next_observation=ModelInput.from_ints(list(self._history)),
            next_stop_condition=None,
            metrics={"turn": self._turn},
        )


@dataclass
class CountingGroup(EnvGroupBuilder):
    """A group of counting environments; ``bonus`` is what the group rewards on top."""

    prompt: list[int]
    size: int = 2
    num_turns: int = 1
    error: BaseException | None = None
    bonus: float = 0.0
    rewrite: bool = False
    num_builds: int = 0
    num_cleanups: int = 0

    async def make_envs(self) -> Sequence[Env]:
        self.num_builds += 1
        return [
            CountingEnv(self.prompt, self.num_turns, self.rewrite, self.error)
            for _ in range(self.size)
        ]

    async def compute_group_rewards(
        self, trajectory_group: list[Trajectory], env_group: Sequence[Env]
    ) -> list[tuple[float, Metrics]]:
        return [(self.bonus, {"members": len(env_group)}) for _ in trajectory_group]

    async def cleanup(self) -> None:
        self.num_cleanups += 1

"""Trajectories into training data for the policy-gradient losses.

Knows nothing of the losses but their inputs. Invariant: position t of a datum predicts token t + 1
of the episode; logprobs and advantages are 0 wherever that token was not sampled by the policy, so
prompts and the environment's words carry no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.types import Datum, ModelInput, TensorData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts.advantage import Advantages
    from tinker_ray.rollouts.trajectory import Trajectory, TrajectoryGroup, Transition


@dataclass(slots=True)
class _Sequence:
    """Tokens of consecutive turns, in which each observation extends what came before."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    is_action: list[bool] = field(default_factory=list)

    def is_extended_by(self, observation: list[int]) -> bool:
        return observation[: len(self.tokens)] == self.tokens

    def append(self, observation: list[int], transition: Transition) -> None:
        action = transition.ac
        news = observation[len(self.tokens) :]
        self.tokens += [*news, *action.tokens]
        self.logprobs += [*([0.0] * len(news)), *action.logprobs]
        self.is_action += [*([False] * len(news)), *([True] * len(action.tokens))]

    def datum(self, advantage: float) -> Datum:
        action_T = np.asarray(self.is_action[1:], dtype=np.float32)
        return Datum(
            model_input=ModelInput.from_ints(self.tokens[:-1]),
            loss_fn_inputs={
                "target_tokens": TensorData(self.tokens[1:], "int64", [len(self.tokens) - 1]),
                "logprobs": TensorData.from_numpy(np.asarray(self.logprobs[1:], dtype=np.float32)),
                "advantages": TensorData.from_numpy(action_T * np.float32(advantage)),
            },
        )


def from_trajectory(trajectory: Trajectory, advantage: float) -> list[Datum]:
    """Turn an episode into as few data as its observations allow.

    Turns are joined for as long as each observation begins with the tokens so far; one that does
    not (the environment rewrote the history) begins a new datum. All sampled tokens get the
    episode's advantage.

    Raises:
        ValueError: There are no logprobs, or an observation holds an image.
    """
    sequences: list[_Sequence] = []
    for transition in trajectory.transitions:
        observation = transition.ob.to_ints()
        if not sequences or not sequences[-1].is_extended_by(observation):
            sequences.append(_Sequence())
        sequences[-1].append(observation, transition)
    return [sequence.datum(advantage) for sequence in sequences if any(sequence.is_action[1:])]


def from_groups(
    groups_P: Sequence[TrajectoryGroup], advantages: Advantages, *, keep_zero: bool = False
) -> list[Datum]:
    """Turn a batch into data, group by group.

    Trajectories of advantage 0 are left out, unless ``keep_zero``: their gradient is 0 under
    importance_sampling, ppo and cispo (but not under dro, which also pulls towards the old policy).
    """
    return [
        datum
        for group, advantages_G in zip(groups_P, advantages.advantages_P_G, strict=True)
        for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True)
        if advantage != 0.0 or keep_zero
        for datum in from_trajectory(trajectory, advantage)
    ]

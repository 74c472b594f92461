from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinker_ray.rl.reference_kl import ReferencePenalty
from tinker_ray.rollouts import TokensWithLogprobs, Trajectory, TrajectoryGroup, Transition, center
from tinker_ray.types import ModelInput


@dataclass
class Scorer:
    """Finds each token as likely as it is told."""

    logprob: float
    asked: list[list[int]] = field(default_factory=list)

    async def compute_logprobs_async(self, prompt: ModelInput) -> list[float | None]:
        self.asked.append(prompt.to_ints())
        return [None, *[self.logprob] * (prompt.length - 1)]


def group(*rewards: float) -> TrajectoryGroup:
    trajectories = [
        Trajectory(
            transitions=[
                Transition(
                    ob=ModelInput.from_ints([1, 2]),
                    ac=TokensWithLogprobs(tokens=[3, 4], maybe_logprobs=[-0.5, -1.0]),
                    reward=reward,
                    episode_done=True,
                )
            ],
            final_ob=ModelInput.from_ints([1, 2, 3, 4]),
        )
        for reward in rewards
    ]
    return TrajectoryGroup(trajectories, [0.0] * len(rewards), [{}] * len(rewards))


async def test_sampled_tokens_pay_for_being_likelier_than_in_the_reference() -> None:
    scorer, groups = Scorer(-2.0), [group(1.0, 0.0)]
    penalized = await ReferencePenalty(scorer, 0.1).data(groups, center(groups))
    advantages = [datum.loss_fn_inputs["advantages"].to_numpy() for datum in penalized.data]
    assert np.allclose(advantages, [[0, 0.5 - 0.15, 0.5 - 0.1], [0, -0.5 - 0.15, -0.5 - 0.1]])
    assert [[1, 2, 3, 4]] * 2 == scorer.asked
    assert (4, 5.0) == (penalized.num_tokens, penalized.log_ratio)


async def test_groups_without_a_lesson_are_pulled_back_all_the_same() -> None:
    groups = [group(1.0, 1.0)]
    penalized = await ReferencePenalty(Scorer(-2.0), 1.0).data(groups, center(groups))
    assert np.allclose(penalized.data[0].loss_fn_inputs["advantages"].to_numpy(), [0, -1.5, -1.0])

"""What a batch of groups says about the policy.

Knows nothing of training. Invariant: numbers are means over episodes or tokens, never over groups,
so that groups of different size count by what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinker_ray.rollouts import Trajectory, TrajectoryGroup
from tinker_ray.types import Datum, ForwardBackwardOutput

CORRECT = "correct"
"""The metric of an environment that says whether an episode solved its problem."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over a batch.

    Attributes:
        reward: Mean return of the episodes.
        accuracy: Share of the episodes whose metric ``correct`` is above 0 at some turn; of those
            with
            a positive return, where environments have no such metric.
        entropy: Mean of minus the logprob of the sampled tokens: an estimate of the policy's
            entropy
            per token at temperature 1.
        num_episodes: How many episodes.
        num_tokens: How many sampled tokens.
    """

    reward: float
    accuracy: float
    entropy: float
    num_episodes: int
    num_tokens: int


def measure(groups: Sequence[TrajectoryGroup]) -> Measure:
    """Measure a batch."""
    rewards = [reward for group in groups for reward in group.get_total_rewards()]
    trajectories = [trajectory for group in groups for trajectory in group.trajectories_G]
    solved = [_solved(*pair) for pair in zip(trajectories, rewards, strict=True)]
    logprobs = [
        logprob
        for trajectory in trajectories
        for transition in trajectory.transitions
        for logprob in transition.ac.maybe_logprobs or ()
    ]
    return Measure(
        reward=_mean(rewards),
        accuracy=_mean(solved),
        entropy=-_mean(logprobs),
        num_episodes=len(trajectories),
        num_tokens=sum(
            len(transition.ac.tokens)
            for trajectory in trajectories
            for transition in trajectory.transitions
        ),
    )


def kl_sample_train(data: Sequence[Datum], output: ForwardBackwardOutput) -> float:
    """Estimate KL(sampler || trainer) per sampled token from the batch that was trained on.

    Both are meant to be the same policy, so this is near 0 unless weights or numerics differ.

    Source: http://joschu.net/blog/kl-approx.html (the estimator k1)
    """
    differences = []
    for datum, result in zip(data, output.loss_fn_outputs, strict=True):
        sampled_T = datum.loss_fn_inputs["logprobs"].to_numpy()
        trained_T = result["logprobs"].to_numpy()
        is_action_T = datum.loss_fn_inputs["advantages"].to_numpy() != 0
        differences.append((sampled_T - trained_T)[is_action_T])
    return float(np.concatenate(differences).mean()) if differences else 0.0


def _solved(trajectory: Trajectory, reward: float) -> float:
    marks = [
        transition.metrics[CORRECT]
        for transition in trajectory.transitions
        if CORRECT in transition.metrics
    ]
    return float(max(marks) > 0) if marks else float(reward > 0)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0

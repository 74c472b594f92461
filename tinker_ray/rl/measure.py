"""What a batch of groups says about the policy.

Knows nothing of training. Invariant: numbers are means over episodes or tokens, never over groups,
so that groups of different size count by what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinker_ray.rollouts import TrajectoryGroup
from tinker_ray.rollouts.far_datum import agreement
from tinker_ray.rollouts.summary import EpisodeSummary
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
    """Measure a batch; fetches nothing."""
    rewards = [reward for group in groups for reward in group.get_total_rewards()]
    episodes = [episode for group in groups for episode in group.episodes()]
    solved = [_solved(*pair) for pair in zip(episodes, rewards, strict=True)]
    num_logprobs = sum(episode.num_logprobs for episode in episodes)
    return Measure(
        reward=_mean(rewards),
        accuracy=_mean(solved),
        entropy=-sum(episode.logprob for episode in episodes) / max(1, num_logprobs),
        num_episodes=len(episodes),
        num_tokens=sum(episode.tokens for episode in episodes),
    )


def kl_sample_train(data: Sequence[Datum], output: ForwardBackwardOutput) -> float:
    """Estimate KL(sampler || trainer) per sampled token from the batch that was trained on.

    Both are meant to be the same policy, so this is near 0 unless weights or numerics differ.

    Source: http://joschu.net/blog/kl-approx.html (the estimator k1)
    """
    agreed = agreement(data, output)
    return agreed.log_ratio / max(1, agreed.num_tokens)


def _solved(episode: EpisodeSummary, reward: float) -> float:
    return float(episode.metrics.get(CORRECT, reward) > 0)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0

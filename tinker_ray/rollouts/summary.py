"""Episodes and groups in numbers: what is asked of them where their tokens are not.

Knows nothing of where those are. Invariant: a summary says of an episode what its trajectory would,
and its size does not grow with the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.rollouts.trajectory import Metrics, RolloutError, Trajectory


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """One episode in numbers.

    Attributes:
        turns: How many.
        tokens: Of its actions.
        reward: Of its steps, added up in their order.
        logprob: Of its actions' tokens, added up, where they have logprobs.
        num_logprobs: How many tokens those are.
        metrics: The highest value that each metric had at any turn.
        stop_reason: Why the episode ended, where that is known.
    """

    turns: int
    tokens: int
    reward: float
    logprob: float = 0.0
    num_logprobs: int = 0
    metrics: Metrics = field(default_factory=dict)
    stop_reason: str | None = None

    @classmethod
    def of(cls, trajectory: Trajectory) -> EpisodeSummary:
        """Sum an episode up."""
        metrics: Metrics = {}
        logprob, num_logprobs = 0.0, 0
        for turn in trajectory.transitions:
            for name, value in turn.metrics.items():
                metrics[name] = max(value, metrics.get(name, value))
            logprob += sum(turn.ac.maybe_logprobs or ())
            num_logprobs += len(turn.ac.maybe_logprobs or ())
        return cls(
            turns=len(trajectory.transitions),
            tokens=sum(len(turn.ac.tokens) for turn in trajectory.transitions),
            reward=sum(turn.reward for turn in trajectory.transitions),
            logprob=logprob,
            num_logprobs=num_logprobs,
            metrics=metrics,
            stop_reason=trajectory.stop_reason,
        )


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group without its trajectories.

    Attributes:
        episodes: One for each trajectory.
        datum_lengths: By episode: how many positions each of its training data has.
        num_bytes: Size of the tokens and logprobs that are left out.
        final_rewards_G: As the group's.
        metrics_G: As the group's.
        rollout_errors: As the group's.
    """

    episodes: list[EpisodeSummary]
    datum_lengths: list[list[int]]
    num_bytes: int
    final_rewards_G: list[float]  # noqa: N815 - shape suffix
    metrics_G: list[Metrics]  # noqa: N815 - shape suffix
    rollout_errors: list[RolloutError]

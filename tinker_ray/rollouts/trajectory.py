"""What rollouts yield: actions with their logprobs, transitions, trajectories and groups of them.

Structurally the shapes of the Tinker cookbook, so that its environments and reward functions read
them unchanged. Knows nothing of who sampled. Invariant: the lists of a group run parallel, one
entry per trajectory, wherever the trajectories are.

Source: https://github.com/thinking-machines-lab/tinker-cookbook/blob/30a5f559398028b62083c351c6c7c5688bbcb815/tinker_cookbook/rl/types.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tinker_ray.rollouts.summary import EpisodeSummary
from tinker_ray.types import ModelInput, StopReason

if TYPE_CHECKING:
    from tinker_ray.rollouts.far import FarTrajectories

Observation: TypeAlias = ModelInput
Action: TypeAlias = list[int]
Metrics: TypeAlias = dict[str, float | int]
Logs: TypeAlias = dict[str, str | int | float]


@dataclass
class TokensWithLogprobs:
    """Sampled tokens, each with the logprob that the sampling policy gave it.

    Attributes:
        tokens: The action.
        maybe_logprobs: None if the policy gave none.
        stop_reason: ``length`` if the action was cut off by its limit.
        sequence_id: The service's name for the draw; None where it gives none.
    """

    tokens: list[int]
    maybe_logprobs: list[float] | None
    stop_reason: StopReason = "stop"
    sequence_id: str | None = None

    @property
    def logprobs(self) -> list[float]:
        """The logprobs.

        Raises:
            ValueError: The policy gave none.
        """
        if self.maybe_logprobs is None:
            message = "logprobs are not available: the policy gave none"
            raise ValueError(message)
        return self.maybe_logprobs


@dataclass
class Transition:
    """One turn: what the policy saw, what it did and what the environment said to that."""

    ob: Observation
    ac: TokensWithLogprobs
    reward: float
    episode_done: bool
    metrics: Metrics = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """The turns of one episode and the observation after the last of them.

    Attributes:
        transitions: In order.
        final_ob: What the environment showed at the end.
        stop_reason: Why the episode ended, where its environment says so by a metric
            ``stop/<reason>`` of the last turn.
    """

    transitions: list[Transition]
    final_ob: Observation
    stop_reason: str | None = None


@dataclass(frozen=True)
class RolloutError:
    """Why an episode is missing from its group.

    Attributes:
        error_type: The class of the failure, such as ``environment`` or ``timeout``.
        error_message: What happened, and at what stage.
    """

    error_type: str
    error_message: str


@dataclass
class TrajectoryGroup:
    """The trajectories of one group of environments.

    Attributes:
        trajectories_G: One per environment. Those of a far group are fetched when this is first
            read, which may raise ``RolloutFailedError``: they are lost with the node they were on.
        final_rewards_G: What the group builder gave at the end, on top of the rewards of the steps.
        metrics_G: What the group builder measured.
        rollout_errors: Why episodes were left out; one for each that is missing.
        far: Where the trajectories are, if they were left elsewhere.
    """

    trajectories_G: list[Trajectory] = field(repr=False)  # noqa: N815 - shape suffix
    final_rewards_G: list[float]  # noqa: N815 - shape suffix
    metrics_G: list[Metrics]  # noqa: N815 - shape suffix
    rollout_errors: list[RolloutError] = field(default_factory=list)
    far: FarTrajectories | None = field(default=None, compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Leave far trajectories where they are."""
        if self.far is not None:
            del self.trajectories_G

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> list[Trajectory]:
            far = self.__dict__.get("far")
            if name != "trajectories_G" or far is None:
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message)
            self.trajectories_G = far.fetch()
            return self.trajectories_G

    async def fetch(self) -> None:
        """Fetch far trajectories without holding up the event loop; else do nothing.

        Raises:
            RolloutFailedError: They are lost.
        """
        if self.far is not None and self.is_far:
            self.trajectories_G = await self.far.fetch_async()

    @property
    def is_far(self) -> bool:
        """Whether the trajectories are elsewhere, and nobody has fetched them here."""
        return "trajectories_G" not in self.__dict__

    @property
    def num_failed(self) -> int:
        """Episodes that did not come to their end and were left out."""
        return len(self.rollout_errors)

    def get_total_rewards(self) -> list[float]:
        """Return each trajectory's return: the rewards of its steps plus its final reward."""
        if self.far is not None and self.is_far:
            rewards_G = [episode.reward for episode in self.far.summary.episodes]
        else:
            rewards_G = [
                sum(transition.reward for transition in trajectory.transitions)
                for trajectory in self.trajectories_G
            ]
        return [
            reward + final_reward
            for reward, final_reward in zip(rewards_G, self.final_rewards_G, strict=True)
        ]

    def sizes(self) -> list[tuple[int, int]]:
        """Count each trajectory's turns and the tokens of its actions; fetches nothing."""
        if self.far is not None and self.is_far:
            return [(episode.turns, episode.tokens) for episode in self.far.summary.episodes]
        return [
            (
                len(trajectory.transitions),
                sum(len(turn.ac.tokens) for turn in trajectory.transitions),
            )
            for trajectory in self.trajectories_G
        ]

    def episodes(self) -> list[EpisodeSummary]:
        """Return each trajectory in numbers; fetches nothing."""
        if self.far is not None and self.is_far:
            return self.far.summary.episodes
        return [EpisodeSummary.of(trajectory) for trajectory in self.trajectories_G]

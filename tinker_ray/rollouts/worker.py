"""The seam between a pool and what runs its groups: in this process, or an actor on some node.

Knows nothing of either. Invariant: a worker may run many groups at once; the pool alone decides how
many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from tinker_ray.rollouts.env import EnvGroupBuilder
    from tinker_ray.rollouts.policy import RolloutParams, Sampler
    from tinker_ray.rollouts.trajectory import TrajectoryGroup
    from tinker_ray.telemetry.carrier import Carrier


class AttemptId(NamedTuple):
    """Which attempt at which group; a newer attempt fences off the older ones."""

    group: int
    number: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each stage of a group may take, in seconds; None for as long as it likes.

    Attributes:
        setup_s: Making the environments, and the first observation of each.
        sampling_s: Drawing one action.
        step_s: One step of an environment.
        grading_s: The rewards of the group.
        episode_s: All turns of one episode.
        group_s: All of it, as the pool sees it.
    """

    setup_s: float | None = None
    sampling_s: float | None = None
    step_s: float | None = None
    grading_s: float | None = None
    episode_s: float | None = None
    group_s: float | None = None


UNLIMITED = Timeouts()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one group.

    Attributes:
        id: Which one.
        params: How its actions are drawn; the seed is that of the group.
        carrier: The trace that the work belongs to.
        timeouts: How long its stages may take.
        min_episodes: How many episodes have to come to their end for the group to count; None
            wants all of them.
    """

    id: AttemptId
    params: RolloutParams
    carrier: Carrier = field(default_factory=dict)
    timeouts: Timeouts = UNLIMITED
    min_episodes: int | None = None


class RolloutWorker(Protocol):
    """Runs groups of environments."""

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        """Build the environments anew and run an episode in each.

        Raises:
            RolloutFailedError: The group did not come to its end; the worker lives.
            ActorLostError: The worker died.
        """
        ...

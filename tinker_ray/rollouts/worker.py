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
class Attempt:
    """One try at one group.

    Attributes:
        id: Which one.
        params: How its actions are drawn; the seed is that of the group.
        carrier: The trace that the work belongs to.
    """

    id: AttemptId
    params: RolloutParams
    carrier: Carrier = field(default_factory=dict)


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

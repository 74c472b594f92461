"""How groups end, as the consumer of a run hears of it.

Knows nothing of how they were run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tinker_ray.rollouts import TrajectoryGroup
from tinker_ray.rollouts.event import DropReason
from tinker_ray.telemetry.carrier import Carrier


@dataclass
class FinishedGroup(TrajectoryGroup):
    """A trajectory group, and where it came from.

    Attributes:
        index: The place of its builder in the run.
        attempt: How many attempts had failed before.
        tags: The builder's ``logging_tags``.
        carrier: The trace of its rollout, for spans that link to it.
        version: Of the policy that all its actions were drawn with.
        seconds: How long the attempt took.
    """

    index: int = 0
    attempt: int = 0
    tags: list[str] = field(default_factory=list)
    carrier: Carrier = field(default_factory=dict)
    version: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DroppedGroup:
    """A group that will not come.

    Attributes:
        index: The place of its builder in the run.
        reason: Why.
        detail: In words.
        attempts: How often it was started.
        seconds: Since it was first started.
    """

    index: int
    reason: DropReason
    detail: str
    attempts: int
    seconds: float

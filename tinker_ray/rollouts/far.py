"""Groups whose trajectories stay where they were made until somebody asks for them.

Knows neither Ray nor where that is: whoever moved the trajectories brings the :class:`Reference`.
Invariant: a far group answers every question about numbers without fetching anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tinker_ray.rollouts.packed_datum import datum_lengths
from tinker_ray.rollouts.packing import WORTH_TOKENS, PackedGroup, pack, unpack
from tinker_ray.rollouts.summary import EpisodeSummary, GroupSummary
from tinker_ray.rollouts.trajectory import Trajectory, TrajectoryGroup

FAR_BYTES = 64 * 1024
"""From so many bytes of tokens and logprobs on a group is far by default: there it costs the driver
less than half of what it costs by value (see ``docs/benchmarks.md``), and below it transcripts can
be written in full."""
BYTES_PER_TOKEN = 8


class Reference(Protocol):
    """Where a packed group is; equal references are to the same one."""

    def fetch(self) -> PackedGroup:
        """Get it, for callers that may wait.

        Raises:
            RolloutFailedError: It is lost.
        """
        ...

    async def fetch_async(self) -> PackedGroup:
        """Get it, for callers on an event loop.

        Raises:
            RolloutFailedError: It is lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class FarTrajectories:
    """The trajectories of a group: in numbers, and where they are."""

    summary: GroupSummary
    reference: Reference

    def __len__(self) -> int:
        """Count them."""
        return len(self.summary.episodes)

    def fetch(self) -> list[Trajectory]:
        """Get them.

        Raises:
            RolloutFailedError: They are lost.
        """
        return unpack(self.reference.fetch()).trajectories_G

    async def fetch_async(self) -> list[Trajectory]:
        """Get them, for callers on an event loop.

        Raises:
            RolloutFailedError: They are lost.
        """
        return unpack(await self.reference.fetch_async()).trajectories_G

    def group(self) -> TrajectoryGroup:
        """Make a group of them, which fetches them when it is asked for them."""
        summary = self.summary
        return TrajectoryGroup(
            [], summary.final_rewards_G, summary.metrics_G, summary.rollout_errors, far=self
        )


def divided(
    group: TrajectoryGroup, far_bytes: int | None = FAR_BYTES
) -> tuple[GroupSummary, PackedGroup] | tuple[TrajectoryGroup | PackedGroup, None]:
    """Divide a group into what its consumer needs to know of it, and the rest.

    Args:
        group: Of this process.
        far_bytes: From which size on, in bytes of tokens and logprobs; None divides none.

    Returns:
        The group itself, packed if that pays, and nothing else, if it is small, or of a kind that
        cannot be trained on (with images, or without logprobs).
    """
    if far_bytes is None:
        return pack(group), None
    packed = pack(group, worth_tokens=min(WORTH_TOKENS, far_bytes // BYTES_PER_TOKEN))
    if isinstance(packed, TrajectoryGroup):
        return packed, None
    num_bytes = packed.tokens.nbytes + packed.logprobs.nbytes
    if num_bytes < far_bytes:
        return packed, None
    try:
        lengths = [datum_lengths(packed, number) for number in range(len(packed.places))]
    except ValueError:
        return packed, None
    summary = GroupSummary(
        episodes=[EpisodeSummary.of(trajectory) for trajectory in group.trajectories_G],
        datum_lengths=lengths,
        num_bytes=num_bytes,
        final_rewards_G=group.final_rewards_G,
        metrics_G=group.metrics_G,
        rollout_errors=group.rollout_errors,
    )
    return summary, packed

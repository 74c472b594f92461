"""Advantages: how much better an episode did than the others of its group.

Knows nothing of tokens. Invariant: the advantages of a group sum to zero, so a group whose episodes
all earned the same teaches nothing and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts.trajectory import TrajectoryGroup


@dataclass(frozen=True, slots=True)
class Advantages:
    """Advantages of the groups of one batch.

    Attributes:
        advantages_P_G: One list per group, one number per trajectory.
        num_constant_groups: Groups in which every trajectory earned the same.
    """

    advantages_P_G: list[list[float]]  # noqa: N815 - shape suffix
    num_constant_groups: int


def center(groups_P: Sequence[TrajectoryGroup]) -> Advantages:
    """Subtract from each return the mean of its group.

    Source: Dr. GRPO, arXiv 2503.20783 (no division by the standard deviation, which would weigh
    groups by how easy they are).
    """
    advantages_P_G: list[list[float]] = []
    num_constant_groups = 0
    for group in groups_P:
        rewards_G = np.asarray(group.get_total_rewards(), dtype=np.float64)
        if rewards_G.size == 0 or np.all(rewards_G == rewards_G[0]):
            num_constant_groups += 1
            advantages_P_G.append([0.0] * rewards_G.size)
        else:
            centered: list[float] = (rewards_G - rewards_G.mean()).tolist()
            advantages_P_G.append(centered)
    return Advantages(advantages_P_G, num_constant_groups)

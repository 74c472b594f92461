"""The limits of a cluster of one process: both sides in one place, and no messages between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinker_ray.limits.cluster import ClusterLimits
from tinker_ray.limits.holder import HolderLimits
from tinker_ray.limits.permit import DISPATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable


def settle(holder: HolderLimits, cluster: ClusterLimits, now: float) -> None:
    """Carry everything that both sides have to say to each other."""
    for ruling in cluster.notices(now):
        if ruling.holder == holder.holder:
            holder.apply(ruling, now)
    while (statement := holder.poll(now)) is not None:
        holder.apply(cluster.state(statement, now), now)
        for ruling in cluster.notices(now):
            if ruling.holder == holder.holder:
                holder.apply(ruling, now)


class LocalLimits(HolderLimits):
    """What a process may send that has the limits for itself.

    Call :meth:`settle` where a process of a cluster would send messages: after each change and at
    :meth:`wake_at`.

    Args:
        limit: Dispatches at once.
        most_at_work: Samples at work at once, if there is a limit to begin with.
        random: Gives numbers in [0, 1), for the ends of pauses; by default unseeded ones.
    """

    def __init__(
        self,
        limit: int = DISPATCH_LIMIT,
        *,
        most_at_work: int | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        super().__init__("local", random=random)
        self.cluster = ClusterLimits(
            limit, most_at_work=most_at_work, ttl_s=math.inf, slots_ttl_s=math.inf
        )

    def settle(self, now: float) -> None:
        """Bring both sides to agree; afterwards :meth:`admit` tells what may be sent."""
        settle(self, self.cluster, now)

    def wake_at(self, now: float) -> float:
        """When to call :meth:`settle` if nothing happens before; infinity for never."""
        mine = super().wake_at(now)
        return min(mine, self.cluster.wake_at) if self.waiting else mine

"""A rollout worker on the cluster, as a pool holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.reference import StoredGroup
from actors.rollout import SamplerRef
from actors.shipping import Shipment, Shipped
from tinker_ray.errors import ActorLostError
from tinker_ray.rollouts.far import FarTrajectories
from tinker_ray.rollouts.packing import PackedGroup, unpack
from tinker_ray.rollouts.summary import GroupSummary
from tinker_ray.telemetry.merge import Merger

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider

    from actors.handles.remote import RemoteActor
    from tinker_ray.rollouts import Attempt, EnvGroupBuilder, Sampler, TrajectoryGroup

DRAIN_S = 3.0


class RolloutHandle:
    """Runs groups on one rollout actor; a lost actor is not restarted, its pool opens another one.

    Args:
        remote: The actor.
        on_closed: Called when the handle is closed.
        meter_provider: Gets what is measured there; by default this process's own.
    """

    def __init__(
        self,
        remote: RemoteActor,
        on_closed: Callable[[RolloutHandle], Any] | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._remote = remote
        self._on_closed = on_closed
        self._merger = Merger(remote.name, meter_provider)

    def __repr__(self) -> str:
        """Show the actor."""
        return f"RolloutHandle({self._remote!r})"

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        """Run a group of environments there; cancelling this ends the group.

        The trajectories of a large group stay where they are until they are asked for.

        Args:
            builder: Travels by pickle.
            sampler: A sampling client of this runtime, or any sampler that pickles.
            attempt: How to draw, and the trace that the group belongs to.

        Raises:
            RolloutFailedError: The environment or the sampler raised.
            ActorLostError: The actor died; it is gone for good.
        """
        try:
            head, rest = await self._remote.call_for_two(
                "run_group", builder, SamplerRef.of(sampler), attempt, carrier=attempt.carrier
            )
        except ActorLostError:
            self._remote.kill()
            self._forget()
            raise
        if isinstance(head, Shipped):
            self._merger.merge(head.shipment.measured)
            head = head.answer
        if isinstance(head, GroupSummary):
            return FarTrajectories(head, StoredGroup(rest)).group()
        packed: PackedGroup | TrajectoryGroup = head
        return unpack(packed)

    async def ready(self) -> None:
        """Return when the actor runs.

        Raises:
            ActorLostError: It could not be started.
            TinkerError: It cannot work, for example for want of an API key.
        """
        await self._remote.ping()

    async def close(self) -> None:
        """End the actor; idempotent."""
        self._forget()
        left = await self._remote.aclose(drain_s=DRAIN_S)
        if isinstance(left, Shipment):
            self._merger.merge(left.measured)

    def _forget(self) -> None:
        if self._on_closed is not None:
            self._on_closed(self)

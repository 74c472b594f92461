"""Packed groups in Ray's object store, by reference.

The store keeps the second answer of a call on the node that gave it; whoever made the call owns it.
So a group outlives its worker's process, and goes when its consumer lets go of the reference, or
with its node. Invariant: what is lost is an error of the infrastructure, not one of Ray's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from tinker_ray.rollouts import RolloutFailedError
from tinker_ray.rollouts.failure import FETCH, LOST

if TYPE_CHECKING:
    from tinker_ray.rollouts.packing import PackedGroup

FETCH_S = 180.0
"""How long a group may take to come: longer than Ray takes to give up a node that is silent."""


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A packed group in the object store.

    Attributes:
        ref: Ray's own reference, which keeps the group.
    """

    ref: Any

    def fetch(self) -> PackedGroup:
        """Get the group, for callers that may wait.

        Raises:
            RolloutFailedError: It is lost.
        """
        try:
            packed: PackedGroup = ray.get(self.ref, timeout=FETCH_S)
        except RayError as error:
            raise _lost(error) from None
        return packed

    async def fetch_async(self) -> PackedGroup:
        """Get the group, for callers on an event loop.

        Raises:
            RolloutFailedError: It is lost.
        """
        try:
            async with asyncio.timeout(FETCH_S):
                packed: PackedGroup = await self.ref
        except (RayError, TimeoutError) as error:
            raise _lost(error) from None
        return packed


def _lost(error: Exception) -> RolloutFailedError:
    detail = f"{LOST} ({type(error).__name__})"
    return RolloutFailedError(kind="infrastructure", stage=FETCH, detail=detail)

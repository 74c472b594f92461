"""One model's training operations as a client holds them.

Every operation is kept until it is acknowledged, and handed over again when the actor died over it:
the actor and the service recognise its number. Invariant: at most ``WINDOW`` numbers lie between
the oldest operation that is not acknowledged and the newest that was handed over, so that the one
whose turn it is always finds room in the actor.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.training import WINDOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.handles.remote import RemoteActor
    from tinker_ray.core.operation import Operation

DRAIN_S = 10.0


class Acknowledged:
    """Which numbers are done with: all below the floor, and some above it."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._above: set[int] = set()

    def add(self, number: int) -> None:
        """Note that a number is done with."""
        self._above.add(number)
        self.raise_to(self.floor)

    def raise_to(self, floor: int) -> None:
        """Note that all numbers below ``floor`` are done with."""
        self.floor = max(self.floor, floor)
        self._above = {number for number in self._above if number >= self.floor}
        while self.floor in self._above:
            self._above.remove(self.floor)
            self.floor += 1


class TrainingHandle:
    """Calls the actor of one model."""

    def __init__(self, remote: RemoteActor, first_seq: int) -> None:
        self._remote = remote
        self._acknowledged = Acknowledged(first_seq)
        self._moved = asyncio.Event()

    def __repr__(self) -> str:
        """Show the actor and how far it is."""
        return f"TrainingHandle({self._remote!r}, floor={self._acknowledged.floor})"

    async def run(
        self, operation: Operation, floor: int = 0, carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - each kind of operation has its own result
        """Execute an operation in its turn and return its result.

        Raises:
            RequestFailedError: The operation failed at the service.
            APIError: The service refused it or could not be reached.
            ActorLostError: The actor is dead for good.
        """
        self._advance(floor)
        while operation.seq >= self._acknowledged.floor + WINDOW:
            self._moved.clear()
            await self._moved.wait()
        try:
            return await self._remote.call_until_answered(
                "run", lambda: (operation, self._acknowledged.floor), dict(carrier or {})
            )
        finally:
            self._acknowledged.add(operation.seq)
            self._moved.set()

    async def aclose(self) -> None:
        """End the actor; idempotent."""
        await self._remote.aclose(drain_s=DRAIN_S)

    def _advance(self, floor: int) -> None:
        if floor > self._acknowledged.floor:
            self._acknowledged.raise_to(floor)
            self._moved.set()

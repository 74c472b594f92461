"""One model's training operations on the cluster.

Knows nothing of Ray. The order is in the operations themselves: calls may arrive in any order and
any number of times, see :class:`tinker_ray.core.training.TrainingCore`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from tinker_ray.core.training import TrainingCore
from tinker_ray.errors import TinkerError

if TYPE_CHECKING:
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.session import ModelHandle

WINDOW = 64
"""Operations that a handle has under way at most; the actor takes a few more calls than that."""
ANNOUNCE_S = 10.0


class Inventory(Protocol):
    """The session's list of training actors."""

    async def announce(self, model_id: str) -> None:
        """Note that a training actor lives."""
        ...


class TrainingActor:
    """Executes the operations of one model, each once.

    Args:
        service: The session.
        model: The model.
        inventory: Where the actor announces itself.
        link: The service; by default one is opened from the environment.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(
        self,
        service: ServiceSpec,
        model: ModelHandle,
        inventory: Inventory,
        *,
        link: Link | None = None,
    ) -> None:
        self._link = link or service.open_link()
        self._inventory = inventory
        self._core = TrainingCore(
            self._link,
            model.model_id,
            first_seq=model.first_seq,
        )
        self._announcing = asyncio.get_running_loop().create_task(self._announce())

    def __repr__(self) -> str:
        """Show what runs."""
        return f"TrainingActor({self._core!r})"

    async def run(self, operation: Operation, floor: int = 0) -> Any:  # noqa: ANN401
        """Execute an operation in its turn; see :meth:`TrainingCore.run`.

        Raises:
            RequestFailedError: The operation failed at the service.
            APIStatusError: The service refused it.
            APIConnectionError: The service could not be reached.
        """
        return await self._core.run(operation, floor)

    async def aclose(self) -> None:
        """Stop waiting for results and close the connections; idempotent."""
        self._announcing.cancel()
        await asyncio.gather(self._announcing, return_exceptions=True)
        await self._core.aclose()
        await self._link.aclose()

    async def _announce(self) -> None:
        while True:
            # While the session restarts or is gone the work goes on: the list is for people.
            with contextlib.suppress(TinkerError):
                await self._inventory.announce(self._core.model_id)
            await self._link.clock.sleep(ANNOUNCE_S)

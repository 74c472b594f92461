"""One model's training operations on the cluster.

Knows nothing of Ray. The order is in the operations themselves: calls may arrive in any order and
any number of times, see :class:`tinker_ray.core.training.TrainingCore`. While one client has the
model, it numbers its operations itself, and a call takes no further step. Once that client is
shared, its copies' operations get their numbers here, see :class:`actors.shared_order.SharedOrder`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from actors.far_data import make
from actors.journal import MemoryJournal, Record
from actors.shared_order import SharedOrder
from tinker_ray.core.far_operation import FarForwardBackward, FarOutput, plain
from tinker_ray.core.training import TrainingCore
from tinker_ray.errors import StaleHandleError, TinkerError
from tinker_ray.rollouts.far_datum import agreement

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from actors.journal import Journal
    from actors.service import ServiceSpec
    from actors.shared_order import Key
    from tinker_ray.core.link import Link
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.types import ForwardBackwardOutput

WINDOW = 64
"""Operations that a handle has under way at most."""
SLOTS = 40 * WINDOW
"""Calls that the actor takes at once: those of the owner and of many copies."""
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
        journal: Where the shared order is written down; by default it ends with this object.
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
        journal: Journal | None = None,
        link: Link | None = None,
    ) -> None:
        self._link = link or service.open_link()
        self._inventory = inventory
        self._core = TrainingCore(
            self._link,
            model.model_id,
            first_seq=model.first_seq,
        )
        record = Record(journal or MemoryJournal(), f"{model.model_id}/order", self._link.clock)
        self._order = SharedOrder(record, self._link.clock, self._floor_rose)
        self._shared: dict[Key, asyncio.Task[Any]] = {}
        self._lent: dict[int, _Lent] = {}
        self._announcing = asyncio.get_running_loop().create_task(self._announce())

    def __repr__(self) -> str:
        """Show what runs."""
        order = f", {self._order!r}" if self._order.is_shared else ""
        return f"TrainingActor({self._core!r}{order})"

    async def run(self, operation: Operation, floor: int = 0) -> Any:  # noqa: ANN401
        """Execute an operation in its turn; see :meth:`TrainingCore.run`.

        Raises:
            RequestFailedError: The operation failed at the service.
            APIStatusError: The service refused it.
            APIConnectionError: The service could not be reached.
        """
        self._order.owner_is_at(floor)
        return await self._execute(operation, self._order.floor if self.is_shared else floor)

    @property
    def is_shared(self) -> bool:
        """Whether several copies of the client work on the model."""
        return self._order.is_shared

    async def share(self, first: int, floor: int) -> None:
        """Number the operations of several copies from now on; idempotent.

        Args:
            first: The number that the owner would have given next.
            floor: None of the owner's own numbers below it will come (again).

        Raises:
            OSError: The change could not be written down.
        """
        await self._order.share(first, floor)

    async def run_shared(self, copy: str, operation: Operation, floor: int) -> Any:  # noqa: ANN401
        """Execute an operation of a copy of the client, in that copy's order.

        Args:
            copy: Which copy.
            operation: With the copy's own number.
            floor: None of the copy's numbers below it will come (again).

        Raises:
            RequestFailedError: The operation failed at the service.
            APIStatusError: The service refused it.
            APIConnectionError: The service could not be reached.
            StaleHandleError: The owner is gone, or the operation came too late.
        """
        key = (copy, operation.seq)
        task = self._shared.get(key)
        if task is None:
            task = asyncio.create_task(self._run_shared(copy, operation, floor))
            self._shared[key] = task
            task.add_done_callback(lambda _: self._shared.pop(key, None))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            message = f"{self._core.model_id} was closed: an operation may go on there"
            raise StaleHandleError(message) from None

    async def lend_turn(self, copy: str | None, number: int, floor: int) -> int:
        """Return the number of an operation once it is its turn, and hold the turn.

        The caller sends the operation itself, then calls :meth:`return_turn`.

        Args:
            copy: Which copy of the client; None for the owner, before it shared the client.
            number: The copy's own, or the owner's.
            floor: None of its numbers below it will come (again).

        Raises:
            StaleHandleError: The number was used before, or the owner is gone.
        """
        seq = number
        if copy is None:
            self._order.owner_is_at(floor)
        else:
            seq = await self._order.admit(copy, number, floor, range(number, number + 1))
        if seq not in self._lent:
            turn = self._core.turn(seq, self._order.floor if self.is_shared else floor)
            self._lent[seq] = _Lent(turn)
        await self._lent[seq].held()
        return seq

    async def return_turn(self, copy: str | None, number: int, seq: int) -> None:
        """Pass on a turn that was lent; idempotent, and right on an actor that was restarted."""
        lent = self._lent.pop(seq, None)
        if lent is not None:
            await lent.give_back()
        elif seq >= self._core.next_number:
            await self.lend_turn(copy, number, 0)
            await self.return_turn(copy, number, seq)
        if copy is not None:
            self._order.done(copy, number)

    async def aclose(self) -> None:
        """Stop waiting for results and close the connections; idempotent."""
        tasks = [self._announcing, *self._shared.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lent in self._lent.values():
            await lent.give_back()
        await self._order.aclose()
        await self._core.aclose()
        await self._link.aclose()

    async def _run_shared(self, copy: str, operation: Operation, floor: int) -> Any:  # noqa: ANN401
        seq = await self._order.admit(copy, operation.seq, floor, _unit(operation))
        try:
            return await self._execute(replace(operation, seq=seq), self._order.floor)
        finally:
            self._order.done(copy, operation.seq)

    async def _execute(self, operation: Operation, floor: int) -> Any:  # noqa: ANN401
        if not isinstance(operation, FarForwardBackward):
            return await self._core.run(operation, floor)
        made = await make(operation.data)
        output: ForwardBackwardOutput = await self._core.run(plain(operation, made.packed), floor)
        num_data = len(output.loss_fn_outputs)
        if num_data != max(1, len(made.data)):  # the service had it before something was lost
            return FarOutput(output.metrics, num_data=num_data)
        if not made.data:
            return FarOutput(lost=made.lost)
        return FarOutput(output.metrics, agreement(made.data, output), made.lost, num_data)

    def _floor_rose(self) -> None:
        self._core.advance_to(self._order.floor)

    async def _announce(self) -> None:
        while True:
            # While the session restarts or is gone the work goes on: the list is for people.
            with contextlib.suppress(TinkerError):
                await self._inventory.announce(self._core.model_id)
            await self._link.clock.sleep(ANNOUNCE_S)


class _Lent:
    """A turn that somebody else uses."""

    def __init__(self, turn: AbstractAsyncContextManager[None]) -> None:
        self._held = asyncio.get_running_loop().create_future()
        self._holding = asyncio.create_task(self._hold(turn))

    async def held(self) -> None:
        """Return when it is held.

        Raises:
            StaleHandleError: The number was used before.
        """
        await asyncio.wait({self._held, self._holding}, return_when=asyncio.FIRST_COMPLETED)
        if not self._held.done():
            self._holding.result()

    async def give_back(self) -> None:
        """Pass it on."""
        self._holding.cancel()
        await asyncio.gather(self._holding, return_exceptions=True)

    async def _hold(self, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self._held.set_result(None)
            await asyncio.Event().wait()


def _unit(operation: Operation) -> range:
    """Which operations take a turn together with this one: the parts of one batch."""
    part = getattr(operation, "part", 0)
    first = operation.seq - part
    return range(first, first + max(getattr(operation, "num_parts", 1), 1))

"""One model's training operations as a client holds them.

Every operation is kept until it is acknowledged, and handed over again when the actor died over it:
the actor and the service recognise its number. Invariant: at most ``WINDOW`` numbers lie between
the oldest operation that is not acknowledged and the newest that was handed over, so that the one
whose turn it is always finds room in the actor.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.training import WINDOW
from tinker_ray.core.operation import packed
from tinker_ray.core.sdk_method import carry
from tinker_ray.core.training import TrainingCore
from tinker_ray.errors import TinkerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from actors.handles.remote import RemoteActor
    from tinker_ray.core.link import Link
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.session import ModelHandle

logger = logging.getLogger(__name__)

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
    """Calls the actor of one model.

    Args:
        remote: The actor.
        model: The model, and the first number that its client issues.
        open_link: Gives connections of this process's own, for operations that no actor may know.
        is_copy: The client is a copy of another one, in another process: the actor ends with that
            one, and gives the operations their place.
    """

    def __init__(
        self,
        remote: RemoteActor,
        model: ModelHandle,
        open_link: Callable[[], Awaitable[Link]],
        *,
        is_copy: bool = False,
    ) -> None:
        self._remote = remote
        self._model = model
        self._open_link = open_link
        self._is_copy = is_copy
        self._copy = secrets.token_hex(8)
        self._shared_from: float = model.first_seq if is_copy else math.inf
        self._acknowledged = Acknowledged(model.first_seq)
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sharing: asyncio.Task[None] | None = None
        self._told_floor = model.first_seq

    takes_far_data = True
    """The actor makes the data of far groups."""

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
            if getattr(operation, "weights_access_token", None) is not None:
                return await self._run_here(operation)
            method, arguments = self._call(packed(operation))
            return await self._remote.call_until_answered(method, arguments, carry(carrier or {}))
        finally:
            self._acknowledged.add(operation.seq)
            self._moved.set()
            self._tell_floor()

    def _call(self, operation: Operation) -> tuple[str, Callable[[], tuple[Any, ...]]]:
        if operation.seq < self._shared_from:
            return "run", lambda: (operation, self._acknowledged.floor)
        return "run_shared", lambda: (self._copy, operation, self._acknowledged.floor)

    async def _run_here(self, operation: Operation) -> Any:  # noqa: ANN401
        """Execute an operation with a secret in it over connections of this process's own.

        The actor lends its turn for that, under the operation's number.
        """
        copy = None if operation.seq < self._shared_from else self._copy
        seq: int = await self._remote.call_until_answered(
            "lend_turn", lambda: (copy, operation.seq, self._acknowledged.floor)
        )
        core = TrainingCore(await self._open_link(), self._model.model_id, first_seq=seq)
        try:
            return await core.run(replace(operation, seq=seq))
        finally:
            await self._remote.call_until_answered(
                "return_turn", lambda: (copy, operation.seq, seq)
            )
            await core.aclose()

    def hand_over(self, number: int) -> str:
        """Let the actor number the operations from a number on, for copies of the client, too.

        Thread-safe; does nothing more when it was done before.

        Returns:
            The actor's name, by which copies find it.
        """
        if math.isinf(self._shared_from):
            self._shared_from = number
            self._loop.call_soon_threadsafe(self._share)
        return self._remote.name

    def _share(self) -> None:
        self._told_floor = self._acknowledged.floor
        self._sharing = self._loop.create_task(self._tell())

    async def aclose(self) -> None:
        """End the actor, or let go of one that belongs to another client; idempotent."""
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.gather(self._sharing, return_exceptions=True)
        if self._is_copy:
            await self._remote.let_go()
        else:
            await self._remote.aclose(drain_s=DRAIN_S)

    def _tell_floor(self) -> None:
        """After sharing, tell the actor once more when the last own number is acknowledged."""
        floor = self._acknowledged.floor
        told = self._sharing is not None and self._sharing.done()
        if told and self._told_floor < self._shared_from <= floor:
            self._told_floor = floor
            self._sharing = self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            await self._remote.call_until_answered(
                "share", lambda: (int(self._shared_from), self._acknowledged.floor)
            )
        except (TinkerError, OSError) as error:
            logger.warning("%s was not told that it is shared: %s", self._remote.name, error)

    def _advance(self, floor: int) -> None:
        if floor > self._acknowledged.floor:
            self._acknowledged.raise_to(floor)
            self._moved.set()

"""Something that is made when it is first asked for, once for all who ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinker_ray.core.sdk_method import own_context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Once(Generic[T]):
    """Makes a value at the first call; after a failure, again at the next one.

    Belongs to one event loop. Giving up the wait for it does not stop the making, which is no part
    of the call that happened to come first.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._making: asyncio.Task[T] | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody has ever asked for it."""
        return self._making is not None

    @property
    def made(self) -> T | None:
        """The value, if it is there."""
        task = self._making
        if task is None or not task.done() or _has_failed(task):
            return None
        return task.result()

    async def get(self) -> T:
        """Return the value.

        Raises:
            Exception: What making it raises.
        """
        if self._making is None or _has_failed(self._making):
            loop = asyncio.get_running_loop()
            self._making = loop.create_task(self._make(), context=own_context())
        return await asyncio.shield(self._making)

    async def settle(self, patience_s: float) -> T | None:
        """End a making that is under way, and return the value if there is one.

        Args:
            patience_s: How long it may take to end by itself.
        """
        if self._making is not None:
            await asyncio.wait({self._making}, timeout=patience_s)
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        return self.made


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)

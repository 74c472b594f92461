"""Letting tasks through as long as a budget of bytes lasts, first come, first served."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tinker_ray.core.line import Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tinker_ray.limits.budget import ByteBudget


class ByteGate:
    """A byte budget that tasks wait for. One that is too large for it passes alone."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._line = Line()

    def __repr__(self) -> str:
        """Show what is left and who waits."""
        return f"ByteGate({self._budget!r}, waiting={len(self._line)})"

    async def acquire(self, num_bytes: int) -> None:
        """Take some bytes of the budget; to be given back by :meth:`release`."""
        if self._budget.admits() and not self._line:
            self._budget.take(num_bytes)
        else:
            await self._line.wait(self._line.join(num_bytes), self.release)

    def release(self, num_bytes: int) -> None:
        """Give bytes back, and let in who waited for them."""
        self._budget.release(num_bytes)
        while self._budget.admits() and (place := self._line.first()) is not None:
            self._budget.take(place.num_bytes)
            place.let_in.set_result(place.num_bytes)

    @asynccontextmanager
    async def hold(self, num_bytes: int) -> AsyncIterator[None]:
        """Hold some bytes of the budget."""
        await self.acquire(num_bytes)
        try:
            yield
        finally:
            self.release(num_bytes)

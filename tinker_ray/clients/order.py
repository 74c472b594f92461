"""The numbers of a model's operations, as one client issues them: in the order of the calls.

A call may reserve numbers before it knows whether their operations will come: what comes after it
waits behind its hold, and is rejected if it fails. Numbers are issued from any thread; holds end,
and are waited for, on the bridge.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tinker_ray.errors import PoisonedClientError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Hold:
    """Numbers that were reserved by a call, of which some have not been handed over yet."""

    numbers: range
    behind: Hold | None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Consecutive numbers of one call, and the hold that they come behind."""

    numbers: range
    behind: Hold | None

    async def cleared(self) -> None:
        """Wait until everything before has been handed over. Runs on the bridge.

        Raises:
            PoisonedClientError: Something before failed, so that this must not be applied.
        """
        if self.behind is not None:
            await self.behind.over.wait()
            if self.behind.failure is not None:
                raise _rejection(self.behind.failure)


class Order:
    """Issues numbers, and knows which are still open. Safe to use from several threads."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._open: set[int] = set()
        self._hold: Hold | None = None
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    def take(self, count: int = 1) -> Place:
        """Issue consecutive numbers.

        Raises:
            PoisonedClientError: An earlier call failed so that nothing may follow it.
        """
        with self._lock:
            return Place(self._issue(count), self._hold)

    def hold(self, count: int) -> Hold:
        """Issue consecutive numbers; what is called later waits until :meth:`let_pass`.

        Raises:
            PoisonedClientError: An earlier call failed so that nothing may follow it.
        """
        with self._lock:
            self._hold = Hold(self._issue(count), self._hold)
            return self._hold

    def let_pass(self, hold: Hold) -> None:
        """End a hold: its operations have been handed over. Runs on the bridge."""
        with self._lock:
            if self._hold is hold:
                self._hold = None
        hold.behind = None  # which is over: no chain of all that ever was
        hold.over.set()

    def poison(self, hold: Hold, failure: BaseException) -> None:
        """Reject everything that waits behind a hold, and all later calls. Runs on the bridge."""
        with self._lock:
            self._failure = self._failure or failure
        hold.failure = failure
        self.let_pass(hold)

    def close(self, number: int) -> None:
        """Note that an operation was acknowledged, or given up."""
        with self._lock:
            self._open.discard(number)

    def hand_over(self, take_over: Callable[[int], T]) -> T:
        """Tell somebody which number is issued next, before another one can be issued."""
        with self._lock:
            return take_over(self._next)

    @property
    def floor(self) -> int:
        """Every number below it is closed."""
        with self._lock:
            return min(self._open, default=self._next)

    def _issue(self, count: int) -> range:
        if self._failure is not None:
            raise _rejection(self._failure)
        numbers = range(self._next, self._next + count)
        self._next += count
        self._open.update(numbers)
        return numbers


def _rejection(failure: BaseException) -> PoisonedClientError:
    cause = failure.__cause__ if isinstance(failure, PoisonedClientError) else failure
    error = PoisonedClientError(
        f"an earlier forward_backward_custom failed ({cause!r}), so nothing that was called after "
        "it is applied: make a new client with create_training_client_from_state_with_optimizer "
        "from the last checkpoint"
    )
    error.__cause__ = cause
    return error

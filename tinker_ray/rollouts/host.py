"""What carries out the calls of a group: side by side or one by one, with time limits or without.

Knows nothing of threads or event loops, which a host may bring. Invariant: a limit that is reached
is told apart from whatever the called code raises.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

T = TypeVar("T")


class LimitReachedError(Exception):
    """Something took longer than it may.

    Attributes:
        limit_s: The limit.
        hangs: It could not be stopped and goes on.
    """

    def __init__(self, limit_s: float, *, hangs: bool = False) -> None:
        left = ", and cannot be stopped" if hangs else ""
        super().__init__(f"not done within {limit_s:g} s{left}")
        self.limit_s = limit_s
        self.hangs = hangs


class Host(Protocol):
    """Carries out the calls of groups."""

    async def call(
        self,
        method: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - of the user's method
        limit_s: float | None = None,
        **keywords: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call a user's method, wherever its kind belongs, and return what it gives.

        Raises:
            LimitReachedError: It took longer than ``limit_s`` seconds.
        """
        ...

    async def within(self, work: Awaitable[T], limit_s: float | None) -> T:
        """Await something.

        Raises:
            LimitReachedError: It took longer than ``limit_s`` seconds, and was cancelled.
        """
        ...

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
        """Return all results; after the first failure cancel the others and raise it."""
        ...

    async def to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that is not cut short when its caller is cancelled."""
        ...


class OneByOne:
    """The host without an event loop: one thing after the other, here, for as long as it takes."""

    async def call(
        self,
        method: Callable[..., Any],
        *arguments: Any,  # noqa: ANN401 - of the user's method
        limit_s: float | None = None,  # noqa: ARG002 - there is no clock
        **keywords: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call a method here."""
        value = method(*arguments, **keywords)
        return await value if inspect.isawaitable(value) else value

    async def within(self, work: Awaitable[T], limit_s: float | None) -> T:  # noqa: ARG002
        """Await something."""
        return await work

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
        """Run coroutines in turn."""
        results: list[T] = []
        waiting = list(coroutines)
        try:
            while waiting:
                results.append(await waiting.pop(0))
        finally:
            for coroutine in waiting:
                coroutine.close()
        return results

    async def to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it."""
        await work


ONE_BY_ONE = OneByOne()

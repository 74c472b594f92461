"""A plain actor behind the interface of a remote one, with deaths on request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinker_ray.errors import ActorLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(frozen=True)
class Place:
    """Where an actor is."""

    node: str


@dataclass
class FakeRemote:
    """Calls a plain object in this process.

    Attributes:
        make: Makes the plain object; once more after each death.
        name: Of the actor.
        deaths: How many calls the actor is still to die over, after having executed them.
        calls: The methods called, with their arguments.
    """

    make: Callable[[], Any]
    name: str = "fake"
    deaths: int = 0
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    closed: bool = False
    killed: bool = False
    is_dead: bool = False
    _death: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.actor = self.make()

    async def call(self, method: str, *arguments: Any, **_: Any) -> Any:  # noqa: ANN401
        """Call once."""
        self.calls.append((method, arguments))
        death = self._death = self._death or asyncio.get_running_loop().create_future()
        answer = asyncio.ensure_future(getattr(self.actor, method)(*arguments))
        await asyncio.wait({answer, death}, return_when=asyncio.FIRST_COMPLETED)
        if self.deaths and not death.done():
            self._die()
        if death.done():
            answer.cancel()
            raise self._lost()
        return answer.result()

    async def call_for_two(self, method: str, *arguments: Any, **_: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Call once; the second answer stays in this process."""
        answer: tuple[Any, Any] = await self.call(method, *arguments)
        return answer

    async def call_until_answered(
        self, method: str, arguments: Callable[[], tuple[Any, ...]], carrier: object = None
    ) -> Any:  # noqa: ANN401
        """Call until no death follows."""
        while True:
            try:
                return await self.call(method, *arguments(), carrier=carrier)
            except ActorLostError:
                await asyncio.sleep(0)

    async def stream(self, method: str, *arguments: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        """Yield what the method yields; a death follows the first item."""
        self.calls.append((method, arguments))
        async for item in getattr(self.actor, method)(*arguments):
            yield item
            if self.deaths:
                self._die()
                raise self._lost()

    async def control(self, method: str) -> Any:  # noqa: ANN401
        """Ask the shell, which asks the plain object."""
        self.calls.append((method, ()))
        return getattr(self.actor, method)()

    async def ping(self) -> Place:
        """Tell the node, which is named like the actor."""
        return Place(self.name)

    def kill(self) -> None:
        """Remember that it was killed."""
        self.killed = True

    async def aclose(self, *, drain_s: float = 0.0) -> None:  # noqa: ARG002
        """Close the plain object."""
        self.closed = True
        if hasattr(self.actor, "aclose"):
            await self.actor.aclose()

    async def let_go(self) -> None:
        """Leave the actor alone."""
        self.closed = True

    def _die(self) -> None:
        """Replace the actor; whatever is being called in it is lost."""
        self.deaths -= 1
        self.actor = self.make()
        if self._death is not None:
            self._death.set_result(None)
            self._death = None

    def _lost(self) -> ActorLostError:
        return ActorLostError(f"the actor {self.name} is lost", actor=self.name)

"""An actor as its handles see it: calls that always end, in a value or in an error of ours.

While answers are owed, the actor is asked from time to time whether it lives, because Ray leaves
the callers of an actor waiting that cannot be reached or placed. A call whose outcome is unknown,
because the actor died over it, is made again only if the handle says that this does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from tinker_ray.errors import ActorLostError, StaleHandleError, TinkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tinker_ray.telemetry.carrier import Carrier

    RayActor = Any  # Ray's handles have methods by name only
    ObjectRef = Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to believe in an actor that does not answer.

    Attributes:
        start_s: Until its first sign of life, which may have to wait for a node.
        silence_s: After that; Ray itself takes about a minute to give up a node.
        probe_s: Between two questions whether it lives.
        repeats: How often a call is made again after the actor was unavailable.
    """

    start_s: float = 300.0
    silence_s: float = 90.0
    probe_s: float = 5.0
    repeats: int = 30


LONGEST_REASON = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

DEATHS_BELIEVED = 2
"""Reports of a final death in a row, after which an actor is not called again."""


class _Lost(Exception):  # noqa: N818 - a signal between functions of this module
    """The actor did not live to answer."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class RemoteActor:
    """Calls an actor by its name; pickles as that. Belongs to the event loop that uses it.

    Args:
        name: In the namespace.
        namespace: Of the run.
        actor: Ray's own handle, if this process has it already.
        patience: How long to wait for signs of life.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        actor: RayActor | None = None,
        patience: Patience = Patience(),
    ) -> None:
        self.name = name
        self._namespace = namespace
        self._actor = actor
        self._patience = patience
        self._owed = 0
        self._seen = False
        self._closed = False
        self._deaths = 0
        self._silence: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show the name and how many answers are owed."""
        return f"RemoteActor({self.name!r}, owed={self._owed})"

    @property
    def is_dead(self) -> bool:
        """Whether it was reported, again and again, to be dead for good."""
        return self._deaths >= DEATHS_BELIEVED

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the state of this process."""
        return type(self), (self.name, self._namespace, None, self._patience)

    async def call(
        self,
        method: str,
        *arguments: Any,  # noqa: ANN401 - of the plain class's method
        carrier: Carrier | None = None,
        cancel: bool = False,
    ) -> Any:  # noqa: ANN401
        """Call a method once.

        Args:
            method: Of the plain class.
            arguments: By position.
            carrier: The trace that this belongs to.
            cancel: Whether cancelling this cancels the method as well.

        Raises:
            ActorLostError: The actor died over the call; whether it took effect is unknown.
            StaleHandleError: This was closed.
            TinkerError: What the method raised.
        """
        try:
            return await self._once(method, arguments, carrier, cancel=cancel)
        except _Lost as lost:
            raise self._error(lost) from None

    async def call_for_two(
        self,
        method: str,
        *arguments: Any,  # noqa: ANN401 - of the plain class's method
        carrier: Carrier | None = None,
    ) -> tuple[Any, ObjectRef]:
        """Call a method once that returns two things, and leave the second where it is.

        Cancelling this cancels the method. This process owns what the reference is to.

        Raises:
            ActorLostError: The actor died over the call; whether it took effect is unknown.
            StaleHandleError: This was closed.
            TinkerError: What the method raised.
        """
        second = None
        try:
            call = self._handle().call.options(num_returns=2)
            first, second = call.remote(method, arguments, carrier)
            return await self._ended(first), second
        except BaseException as error:
            if second is not None:  # Ray reports errors that nobody looked at: this is the same one
                second.future().add_done_callback(lambda ended: ended.exception())
            if isinstance(error, asyncio.CancelledError) and ray.is_initialized():
                ray.cancel(first)
            if isinstance(error, _Lost):
                raise self._error(error) from None
            raise

    async def call_until_answered(
        self,
        method: str,
        arguments: Callable[[], tuple[Any, ...]],
        carrier: Carrier | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a method that does no harm when it runs twice, again if the actor dies over it.

        Args:
            method: Of the plain class.
            arguments: Gives the arguments, by position, anew for each time.
            carrier: The trace that this belongs to.

        Raises:
            ActorLostError: The actor is dead for good, or dies again and again.
            StaleHandleError: This was closed.
            TinkerError: What the method raised.
        """
        deaths = 0
        for repeat in range(self._patience.repeats):
            try:
                return await self._once(method, arguments(), carrier)
            except _Lost as lost:
                deaths = deaths + 1 if lost.final else 0
                is_last = deaths >= DEATHS_BELIEVED or repeat + 1 == self._patience.repeats
                if is_last or self._closed:
                    raise self._error(lost) from None
                logger.info("%s is called again: %s", self.name, lost)
                await asyncio.sleep(min(0.1 * 2**repeat, 2.0))
        raise AssertionError  # the loop returns or raises

    async def stream(self, method: str, *arguments: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        """Call a method that yields, once, and yield what it does.

        Raises:
            ActorLostError: The actor died over it.
            TinkerError: What the method raised.
        """
        try:
            generator = (
                self._handle().stream.options(num_returns="streaming").remote(method, arguments)
            )
            while True:
                reference = await self._ended(_next(generator))
                if reference is None:
                    return
                yield await self._ended(reference)
        except _Lost as lost:
            raise self._error(lost) from None

    async def ping(self) -> Any:  # noqa: ANN401 - the binding's Place
        """Ask the process where it is.

        Raises:
            ActorLostError: It is dead.
            TinkerError: It lives and cannot work, for example for want of an API key.
        """
        return await self.control("ping")

    async def describe(self) -> str:
        """Show the actor's inside, for people.

        Raises:
            ActorLostError: It is dead.
        """
        text: str = await self.control("describe")
        return text

    async def control(self, method: str) -> Any:  # noqa: ANN401 - of the binding's method
        """Call a method of the shell that answers however much the actor has to do.

        Raises:
            ActorLostError: It is dead.
            TinkerError: It lives and cannot work, for example for want of an API key.
        """
        try:
            return await self._ended(getattr(self._handle(), method).remote())
        except _Lost as lost:
            raise self._error(lost) from None

    async def aclose(self, *, drain_s: float = 0.0) -> Any:  # noqa: ANN401 - of the binding
        """End the actor's process and this handle; idempotent.

        Args:
            drain_s: How long an actor that was ever heard of may take to close by itself.

        Returns:
            What its shell leaves, if it closed by itself.
        """
        left: Any = None
        if self._closed:
            return left
        self._closed = True
        if drain_s and self._seen and self._actor is not None and ray.is_initialized():
            with contextlib.suppress(TimeoutError, RayError):
                async with asyncio.timeout(drain_s):
                    left = await self._actor.drain.remote()
        self.kill()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        return left

    async def let_go(self) -> None:
        """Close this handle and leave the actor alone, which belongs to another; idempotent."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def kill(self) -> None:
        """End the actor's process for good."""
        if self._actor is not None and ray.is_initialized():
            ray.kill(self._actor)

    async def _once(
        self,
        method: str,
        arguments: tuple[Any, ...],
        carrier: Carrier | None,
        *,
        cancel: bool = False,
    ) -> Any:  # noqa: ANN401
        reference = self._handle().call.remote(method, arguments, carrier)
        try:
            return await self._ended(reference)
        except asyncio.CancelledError:
            if cancel and ray.is_initialized():
                ray.cancel(reference)
            raise

    async def _ended(self, reference: Awaitable[Any]) -> Any:  # noqa: ANN401
        """Await an answer, or the end of the patience.

        Raises:
            _Lost: The actor died or is silent for too long.
            TinkerError: What the method raised.
        """
        answer = asyncio.ensure_future(reference)
        silence = self._watched()
        self._owed += 1
        try:
            await asyncio.wait({answer, silence}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                raise _Lost("it has given no sign of life for too long", final=True)
            value = answer.result()
        except RayError as error:
            raise self._translated(error) from None
        except asyncio.CancelledError:
            answer.cancel()
            raise
        finally:
            self._owed -= 1
        self._seen = True
        self._deaths = 0
        return value

    def _handle(self) -> RayActor:
        """Return Ray's handle.

        Raises:
            _Lost: There is no such actor, or no Ray.
        """
        if self._closed:
            raise _Lost("its handle was closed", final=True)
        if not ray.is_initialized():
            raise _Lost("this process is not connected to Ray any more", final=True)
        if self._actor is None:
            try:
                self._actor = ray.get_actor(self.name, self._namespace)
            except ValueError:
                raise _Lost("there is no actor of this name", final=True) from None
        return self._actor

    def _translated(self, error: RayError) -> Exception:
        cause = error
        if isinstance(error, RayTaskError):
            cause = error.cause
            if not isinstance(cause, RayError):
                return cause if isinstance(cause, Exception) else TinkerError(str(cause))
        if isinstance(cause, ActorUnavailableError):
            return _Lost("it was unavailable", final=False)
        if isinstance(cause, ActorDiedError):
            return _Lost(f"it died: {_last_line(cause)}", final=True)
        if isinstance(cause, TaskCancelledError):
            return _Lost("the call was cancelled", final=True)
        return _Lost(f"{type(cause).__name__}", final=False)

    def _error(self, lost: _Lost) -> TinkerError:
        self._deaths = self._deaths + 1 if lost.final else 0
        if self._closed:
            return StaleHandleError(f"{self.name} was closed while its answer was awaited")
        return ActorLostError(f"the actor {self.name} is lost: {lost}", actor=self.name)

    def _watched(self) -> asyncio.Future[None]:
        if self._silence is None or self._silence.done():
            self._silence = asyncio.get_running_loop().create_future()
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._probe(self._silence))
        return self._silence

    async def _probe(self, silence: asyncio.Future[None]) -> None:
        """Ask for signs of life while answers are owed; end the patience if there are none."""
        loop = asyncio.get_running_loop()
        seen_at = loop.time()
        await asyncio.sleep(self._patience.probe_s)
        while self._owed:
            if await self._lives():
                self._seen = True
                seen_at = loop.time()
            limit_s = self._patience.silence_s if self._seen else self._patience.start_s
            if loop.time() - seen_at > limit_s:
                silence.set_result(None)
                return
            await asyncio.sleep(self._patience.probe_s)

    async def _lives(self) -> bool:
        try:
            async with asyncio.timeout(self._patience.probe_s):
                await self._handle().ping.remote()
        except (TimeoutError, RayError, _Lost) as error:
            return isinstance(error, RayTaskError) and not isinstance(error.cause, RayError)
        return True


def _last_line(error: RayError) -> str:
    """Ray's text ends with the reason."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return lines[-1][:LONGEST_REASON] if lines else type(error).__name__


async def _next(generator: Any) -> Any:  # noqa: ANN401
    return await anext(generator, None)

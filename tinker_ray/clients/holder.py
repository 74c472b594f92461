"""What is behind a client, for scripts that reach there: upstream's ``client.holder``.

Blocks where upstream's does. Knows nothing that the session does not.
"""

from __future__ import annotations

import contextlib
import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.low_level import LowLevelClient
from tinker_ray.wire.endpoint import Traffic

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractContextManager

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.clients.telemetry import Telemetry
    from tinker_ray.types import QueueState

T = TypeVar("T")


class ClientConnectionPoolType(enum.Enum):
    """Upstream's names for classes of requests."""

    SESSION = "session"
    SAMPLE = "sample"
    TRAIN = "train"
    REST_SUPPORT_REDIRECT = "rest_support_redirect"
    RETRIEVE_PROMISE = "retrieve_promise"
    RETRIEVE_FUTURES = "retrieve_futures"
    TELEMETRY = "telemetry"


@runtime_checkable
class TelemetryProvider(Protocol):
    """Whatever has telemetry."""

    def get_telemetry(self) -> Any:  # noqa: ANN401 - the telemetry, or None
        """Return it."""
        ...


class QueueStateObserver(ABC):
    """Hears why requests wait at the service."""

    @abstractmethod
    def on_queue_state_change(
        self, queue_state: QueueState, queue_state_reason: str | None = None
    ) -> None:
        """Take in a change."""


class Holder:
    """What is behind the clients of one session.

    Attributes:
        session: The session, as our clients share it.
    """

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    def __repr__(self) -> str:
        """Show the session."""
        return f"Holder({self.session!r})"

    def get_session_id(self) -> str:
        """Return the id of the session, opening it if need be. Blocks.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self._open()).result()

    @property
    def _session_id(self) -> str:
        """The same, by the name under which scripts reach for it."""
        return self.get_session_id()

    def get_telemetry(self) -> Telemetry | None:
        """Return what tells the service of events; None if it is not to be told."""
        return self.session.telemetry

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop on which the clients work."""
        return Bridge.get().loop

    def run_coroutine_threadsafe(self, coro: Coroutine[Any, Any, T]) -> APIFuture[T]:
        """Run a coroutine on that loop."""
        return APIFuture.start(coro)

    async def execute_with_retries(
        self,
        func: Callable[..., Awaitable[T]],
        *args: Any,  # noqa: ANN401 - of the function
        **kwargs: Any,  # noqa: ANN401
    ) -> T:
        """Call a function that sends a request, which repeats what may pass by itself."""
        return await func(*args, **kwargs)

    def aclient(
        self, client_pool_type: ClientConnectionPoolType = ClientConnectionPoolType.TRAIN
    ) -> AbstractContextManager[LowLevelClient]:
        """Lend a client that sends requests by path; its coroutines run on :meth:`get_loop`."""
        traffic = Traffic(client_pool_type.value)
        return contextlib.nullcontext(LowLevelClient(self.session.link, traffic))

    def get_training_client_id(self) -> int:
        """Issue the number of a model that a script makes by itself. Blocks.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self.session.number("model")).result()

    def close(self) -> None:
        """Finish the session; idempotent. Blocks."""
        self.session.close("success")

    async def _open(self) -> str:
        runtime = await self.session.runtime()
        return runtime.session_id

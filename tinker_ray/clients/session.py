"""What the clients of one ``ServiceClient`` share: the runtime and the counters.

The one owner of the numbers of models and sampling sessions, by which the service recognises a
creation that is repeated.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.mode import current_mode, embedded_engine, open_runtime
from tinker_ray.clients.telemetry import Telemetry
from tinker_ray.errors import StaleHandleError
from tinker_ray.telemetry import export

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tinker_ray.config import Settings
    from tinker_ray.core.port import ReporterPort, Runtime
    from tinker_ray.engine.launcher import EmbeddedEngine


Opener: TypeAlias = (
    "Callable[[Settings, Mapping[str, Any] | None, Literal['local', 'cluster']], "
    "Awaitable[Runtime]]"
)


class ClientSession:
    """A session that opens itself when it is first needed.

    Args:
        settings: The service, and where the clients run.
        user_metadata: Kept with the session.
        opener: Opens the runtime.
    """

    def __init__(
        self,
        settings: Settings,
        user_metadata: Mapping[str, Any] | None,
        *,
        opener: Opener = open_runtime,
    ) -> None:
        export.start_export("driver")
        self.settings = settings
        self.model_numbers = itertools.count()
        self.sampling_session_numbers = itertools.count()
        self.custom_loss_numbers = itertools.count()
        self.custom_losses: dict[str, str] = {}
        self._user_metadata = user_metadata
        self._opener = opener
        self._opening: asyncio.Task[Runtime] | None = None
        self._engine: EmbeddedEngine | None = None
        self._closed = False
        self.telemetry = Telemetry(self._reporter) if settings.report else None
        self._closing: asyncio.Task[None] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the service, and whether it is open."""
        state = "closed" if self._closed else "open" if self._opening else "idle"
        return f"ClientSession({self.settings.base_url!r}, {state})"

    @property
    def opened(self) -> Runtime | None:
        """The runtime, if the session is open."""
        if self._closed or self._opening is None or not self._opening.done():
            return None
        return None if self._failed(self._opening) else self._opening.result()

    async def runtime(self) -> Runtime:
        """Return the runtime, opening it at the first call. Runs on the bridge.

        Raises:
            StaleHandleError: The session was closed.
            APIError: The service refused or could not be reached; the next call tries again.
        """
        if self._closed:
            message = "this client was closed: make a new ServiceClient"
            raise StaleHandleError(message)
        if self._opening is None or (self._opening.done() and self._failed(self._opening)):
            self._opening = asyncio.get_running_loop().create_task(self._open())
        return await asyncio.shield(self._opening)

    def close(self, reason: str, detail: str | None = None) -> None:
        """Finish the session and release everything it holds; idempotent. Blocks."""
        with self._lock:
            if self._opening is None:  # nothing to do, and at the end of a process no bridge to ask
                self._closed = True
                return
            try:
                Bridge.get().submit(self._finish(reason, detail)).result()
            finally:
                self._release_engine()

    async def aclose(self, reason: str, detail: str | None = None) -> None:
        """Finish the session and release everything it holds; idempotent. Runs on the bridge."""
        try:
            await self._finish(reason, detail)
        finally:
            if self._engine is not None:
                await asyncio.to_thread(self._release_engine)

    async def _finish(self, reason: str, detail: str | None) -> None:
        self._closed = True
        if self._closing is None:
            work = self._finish_once(reason, detail)
            self._closing = asyncio.get_running_loop().create_task(work)
        await asyncio.shield(self._closing)

    async def _finish_once(self, reason: str, detail: str | None) -> None:
        if self._opening is not None:
            outcome = (await asyncio.gather(self._opening, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await outcome.aclose(reason, detail)

    def _release_engine(self) -> None:
        """Let go of the engine. Works at the end of a process too, when threads cannot start."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    async def _open(self) -> Runtime:
        settings = self.settings
        if settings.embedded_model is not None and self._engine is None:
            settings, self._engine = await asyncio.to_thread(embedded_engine, settings)
            self.settings = settings
        return await self._opener(settings, self._user_metadata, current_mode(settings))

    def _reporter(self) -> ReporterPort | None:
        runtime = self.opened
        return None if runtime is None else runtime.reporter

    @staticmethod
    def _failed(task: asyncio.Task[Runtime]) -> bool:
        return task.cancelled() or task.exception() is not None

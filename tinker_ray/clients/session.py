"""What the clients of one ``ServiceClient`` share: the session and the connections of this process.

Nothing is opened before it is needed: REST calls need no session, and never open one. Knows nothing
of what the clients do. Invariant: what was opened is closed once, and nothing is opened afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.mode import current_mode, embedded_engine, open_runtime
from tinker_ray.clients.once import Once
from tinker_ray.clients.telemetry import Telemetry
from tinker_ray.core.connection import connect
from tinker_ray.core.registry import RegistryCore
from tinker_ray.core.reporter import Reporter
from tinker_ray.errors import StaleHandleError, TinkerError
from tinker_ray.telemetry import export
from tinker_ray.telemetry.log import start_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tinker_ray.config import Settings
    from tinker_ray.core.link import Link
    from tinker_ray.core.port import NumberKind, RegistryPort, ReporterPort, Runtime
    from tinker_ray.engine.launcher import EmbeddedEngine


Opener: TypeAlias = (
    "Callable[[Settings, Mapping[str, Any] | None, Literal['local', 'cluster'], str | None], "
    "Awaitable[Runtime]]"
)
"""Opens a runtime: settings, user metadata, mode, display name."""


OPENING_S = 10.0
"""How long closing waits for a session that is being opened, which could not be finished else."""


@dataclass(eq=False)
class _Held:
    """What was opened, and has to be closed: last opened first."""

    engine: EmbeddedEngine | None = None
    link: Link | None = None
    reporter: Reporter | None = None
    runtime: Runtime | None = None

    async def aclose(self, reason: str, detail: str | None = None) -> None:
        """Close it, but for the engine."""
        try:
            if self.runtime is not None:
                await self.runtime.aclose(reason, detail)
        finally:
            if self.reporter is not None:
                await self.reporter.aclose()
            if self.link is not None:
                await self.link.aclose()

    def release_engine(self) -> None:
        """Let go of the engine. Works at the end of a process too, when threads cannot start."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()


class ClientSession:
    """A session that opens itself when it is first needed.

    One that another process has opened is left when nobody here uses it any more.

    Args:
        settings: The service, and where the clients run.
        user_metadata: Kept with the session.
        display_name: Of the session, for people.
        opener: Opens the runtime.
        connector: Opens connections that belong to no session.
        engine: Gives the embedded engine and the settings to reach it; by default the one that the
            address names, if it names one.
        origin: Where the session comes from, if another process has opened it.
    """

    def __init__(  # noqa: PLR0913 - who opens what, for tests and copies
        self,
        settings: Settings,
        user_metadata: Mapping[str, Any] | None = None,
        *,
        display_name: str | None = None,
        opener: Opener = open_runtime,
        connector: Callable[[Settings], Awaitable[Link]] = connect,
        engine: Callable[[Settings], tuple[Settings, EmbeddedEngine | None]] | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        start_log()
        export.start_export("driver")
        self.settings = settings
        self.user_metadata = user_metadata
        self.display_name = display_name
        self.origin = origin
        self.custom_losses: dict[str, str] = {}
        self._opener = opener
        self._connector = connector
        self._find_engine = engine
        self._held = _Held()
        self._settings = Once(self._resolve)
        self._runtime = Once(self._open)
        self._link = Once(self._connect)
        self._closed = False
        self.telemetry = Telemetry(self._reporter) if settings.report else None
        self._closing: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._closes_at_exit = False
        if origin is not None:
            weakref.finalize(self, _leave, self._held).atexit = False

    def __repr__(self) -> str:
        """Show the service, and whether it is open."""
        state = "closed" if self._closed else "open" if self._runtime.is_asked_for else "idle"
        return f"ClientSession({self.settings.base_url!r}, {state})"

    @property
    def opened(self) -> Runtime | None:
        """The runtime, if the session is open."""
        return None if self._closed else self._runtime.made

    @property
    def has_lost_engine(self) -> bool:
        """Whether there was an embedded engine behind this that has ended."""
        engine = self._held.engine
        return engine is not None and not engine.is_alive()

    async def runtime(self) -> Runtime:
        """Return the runtime, opening the session at the first call. Runs on the bridge.

        Raises:
            StaleHandleError: The session was closed.
            APIError: The service refused or could not be reached; the next call tries again.
        """
        self._check_open()
        return await self._runtime.get()

    async def link(self) -> Link:
        """Return connections to the service that belong to no session. Runs on the bridge.

        Raises:
            StaleHandleError: The session was closed.
            APIError: The service refused or could not be reached; the next call tries again.
        """
        self._check_open()
        return await self._link.get()

    async def registry(self) -> RegistryPort:
        """Return what answers the REST calls, without opening a session for them.

        Raises:
            StaleHandleError: The session was closed.
            APIError: The service refused or could not be reached.
        """
        runtime = self.opened
        return RegistryCore(await self.link()) if runtime is None else runtime.registry

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things that the session makes.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return await (await self.runtime()).number(kind)

    def close_at_exit(self) -> None:
        """See to it that the session is finished when the process ends; idempotent."""
        with self._lock:
            if not self._closes_at_exit:
                self._closes_at_exit = True
                atexit.register(self.close, "success")

    def close(self, reason: str, detail: str | None = None) -> None:
        """Finish the session and release everything it holds; idempotent. Blocks."""
        with self._lock:
            atexit.unregister(self.close)
            if not (self._runtime.is_asked_for or self._link.is_asked_for):
                self._closed = True  # and at the end of a process there is no bridge to ask
                return
            try:
                Bridge.get().submit(self._finish(reason, detail)).result()
            finally:
                self._held.release_engine()

    async def aclose(self, reason: str, detail: str | None = None) -> None:
        """Finish the session and release everything it holds; idempotent. Runs on the bridge."""
        atexit.unregister(self.close)
        try:
            await self._finish(reason, detail)
        finally:
            if self._held.engine is not None:
                await asyncio.to_thread(self._held.release_engine)

    async def _finish(self, reason: str, detail: str | None) -> None:
        self._closed = True
        if self._closing is None:
            work = self._finish_once(reason, detail)
            self._closing = asyncio.get_running_loop().create_task(work)
        await asyncio.shield(self._closing)

    async def _finish_once(self, reason: str, detail: str | None) -> None:
        await self._runtime.settle(OPENING_S)
        await self._link.settle(0)  # connecting leaves nothing at the service
        await self._held.aclose(reason, detail)

    def _check_open(self) -> None:
        if self._closed:
            message = "this client was closed: make a new ServiceClient"
            raise StaleHandleError(message)

    def _reporter(self) -> ReporterPort | None:
        runtime = self.opened
        return self._held.reporter if runtime is None else runtime.reporter

    async def _open(self) -> Runtime:
        settings = await self._settings.get()
        mode = current_mode(settings)
        opening = self._opener(settings, self.user_metadata, mode, self.display_name)
        self._held.runtime = await opening
        return self._held.runtime

    async def _connect(self) -> Link:
        settings = await self._settings.get()
        self._held.link = link = await self._connector(settings)
        if settings.report:
            self._held.reporter = link.events = Reporter(link, None)
            self._held.reporter.start()
        return link

    async def _resolve(self) -> Settings:
        """Return the settings, after an embedded engine was found or started."""
        find = self._find_engine
        if find is None and self.settings.embedded_model is not None:
            find = embedded_engine
        if find is not None:
            self.settings, self._held.engine = await asyncio.to_thread(find, self.settings)
        return self.settings


def _leave(held: _Held) -> None:
    """Leave a session that nobody here uses any more, in the background."""
    if held.runtime is None and held.link is None:
        held.release_engine()
        return

    async def leave() -> None:
        with contextlib.suppress(TinkerError):
            await held.aclose("success")
        await asyncio.to_thread(held.release_engine)

    with contextlib.suppress(RuntimeError):  # at the end of the process there is no loop any more
        Bridge.get().submit_detached(leave())

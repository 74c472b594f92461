"""Tells the service of errors and sessions, in batches and in the background.

Nothing waits for it for long: what cannot be sent is dropped, and a service that does not want to
hear is left alone. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tinker_ray.core import event as events
from tinker_ray.core.link import Link, json_body
from tinker_ray.core.sdk_method import own_context
from tinker_ray.errors import NotFoundError
from tinker_ray.version import SDK_VERSION
from tinker_ray.wire.codec import Body
from tinker_ray.wire.endpoint import TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinker_ray.types import Severity, TelemetryEvent

logger = logging.getLogger(__name__)

MAX_QUEUED = 10_000
MAX_BATCH = 100
FLUSH_EVERY_S = 10.0
FLUSH_S = 5.0
"""How long somebody who wants events sent at once waits for it."""
CLOSE_S = 2.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Reporter:
    """Queues events and sends them.

    Args:
        link: The service.
        session_id: Whose events these are; None for connections without a session.
        wall_clock: The time of day.
        close_s: How long closing waits for what is queued.
    """

    def __init__(
        self,
        link: Link,
        session_id: str | None,
        *,
        wall_clock: Callable[[], datetime] = _utc_now,
        close_s: float = CLOSE_S,
    ) -> None:
        self._link = link
        self._session_id = session_id or f"sessionless-{uuid.uuid4()}"
        self._has_session = session_id is not None
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._close_s = close_s
        self._queue: deque[TelemetryEvent] = deque()
        self._next_index = 0
        self._num_dropped = 0
        self._filled = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sent = asyncio.Event()
        self._wanted = True
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show what waits."""
        return f"Reporter({self._session_id!r}, queued={len(self._queue)})"

    def start(self, *, restarted: bool = False) -> None:
        """Begin, with the event that says that the session has, unless another object did that."""
        if self._task is None:
            if self._has_session and not restarted:
                self._add([events.session_start(self._started_at)])
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="reporter", context=own_context()
            )

    def log(
        self,
        event_name: str,
        event_data: dict[str, object] | None = None,
        severity: Severity = "INFO",
    ) -> bool:
        """Queue an event of this process's own; see :class:`tinker_ray.core.link.EventSink`.

        Returns:
            Whether there was room for it.
        """
        if (event_data or {}).get("func") == TELEMETRY.path:
            return False  # telling that telling failed would never end
        return self._add([events.generic(event_name, event_data, severity, self._wall_clock())])

    async def tell(self, told: Sequence[TelemetryEvent], *, flush: bool = False) -> bool:
        """Queue events that somebody else made; they get their index here.

        Args:
            told: The events.
            flush: Send what is queued now, and wait for it, but not for long.

        Returns:
            Whether there was room for them.
        """
        added = self._add(told)
        if flush:
            await self._flush(FLUSH_S)
        return added

    async def aclose(self) -> None:
        """Say that the session ended, and stop; idempotent. Does not wait for long."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._has_session:
            now = self._wall_clock()
            self._add([events.session_end(now, now - self._started_at)])
        with contextlib.suppress(asyncio.CancelledError):
            await self._flush(self._close_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _add(self, told: Sequence[TelemetryEvent]) -> bool:
        if not self._wanted or len(self._queue) + len(told) > MAX_QUEUED:
            self._num_dropped += len(told)
            logger.debug("%d events were dropped", self._num_dropped)
            return False
        for item in told:
            self._queue.append(item.model_copy(update={"event_session_index": self._next_index}))
            self._next_index += 1
        if told:
            self._sent.clear()
            self._filled.set()
        return True

    async def _flush(self, patience_s: float) -> None:
        if self._filled.is_set():
            self._urgent.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._sent.wait()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            await self._pause()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
                await self._send(batch)
            self._filled.clear()
            self._sent.set()

    async def _pause(self) -> None:
        """Wait for more to send along, or until somebody wants it sent."""
        loop = asyncio.get_running_loop()
        waits = [
            loop.create_task(self._link.clock.sleep(FLUSH_EVERY_S)),
            loop.create_task(self._urgent.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._urgent.clear()

    async def _send(self, batch: list[TelemetryEvent]) -> None:
        body = {
            "events": [item.model_dump(mode="json", exclude_none=True) for item in batch],
            "platform": platform.system(),
            "sdk_version": SDK_VERSION,
            "session_id": self._session_id,
            "process_uuid": own_process_uuid() if self._link.flags.protobuf else None,
        }
        try:
            await self._link.send(TELEMETRY, await self._without_credential(body))
        except NotFoundError:
            self._wanted = False
            self._queue.clear()
            logger.debug("the service takes no telemetry")
        except Exception as error:  # noqa: BLE001 - the border of a background task
            logger.debug("%d events could not be sent: %r", len(batch), error)

    async def _without_credential(self, body: dict[str, Any]) -> Body:
        encoded = json_body(TELEMETRY, body)
        if self._link.credentials is None:
            return encoded
        secret = (await self._link.credentials.current()).reveal().encode()
        hidden = events.HIDDEN.encode()
        return Body(encoded.content.replace(secret, hidden), encoded.content_type)


class _Process:
    """This process, as the service tells several of one session apart."""

    pid = 0
    uuid = ""


def own_process_uuid() -> str:
    """Return an id of this process; a forked child has its own."""
    if _Process.pid != os.getpid():
        _Process.pid, _Process.uuid = os.getpid(), str(uuid.uuid4())
    return _Process.uuid

"""What a script can tell the service of itself: upstream's ``client.get_telemetry()``.

Events are made here and sent by whoever owns the session. Nothing here waits for long, and nothing
that goes wrong here reaches the script.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.holder import TelemetryProvider
from tinker_ray.core import event as events
from tinker_ray.core.event import is_user_error
from tinker_ray.core.reporter import FLUSH_S, MAX_QUEUED
from tinker_ray.errors import TinkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from concurrent.futures import Future

    from tinker_ray.core.port import ReporterPort
    from tinker_ray.types import Severity, TelemetryEvent

__all__ = ["Telemetry", "capture_exceptions", "is_user_error"]

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = FLUSH_S + 1.0


class Telemetry:
    """Tells the service of events and exceptions of a session's clients.

    Args:
        reporter: Gives who sends them; None while the session is not open: they are dropped then.
        patience_s: How long to wait for what is to be sent at once.
    """

    def __init__(
        self, reporter: Callable[[], ReporterPort | None], *, patience_s: float = PATIENCE_S
    ) -> None:
        self._reporter = reporter
        self._patience_s = patience_s
        self._started_at = _now()
        self._num_pending = 0
        self._lock = threading.Lock()
        self._stopped = False

    def __repr__(self) -> str:
        """Show whether it is on."""
        return f"Telemetry({'stopped' if self._stopped else 'on'})"

    def log(
        self,
        event_name: str,
        event_data: dict[str, object] | None = None,
        severity: Severity = "INFO",
    ) -> bool:
        """Tell of an event; returns at once.

        Args:
            event_name: Few names for many events.
            event_data: What JSON lacks becomes text; what looks like a credential is hidden.
            severity: How bad it is.

        Returns:
            Whether there was room for it.
        """
        told = events.generic(event_name, event_data, severity, _now())
        return self._tell([told]) is not None

    async def log_exception(self, exception: BaseException, severity: Severity = "ERROR") -> bool:
        """Tell of an exception, soon; returns at once."""
        return self.log_exception_sync(exception, severity)

    def log_exception_sync(self, exception: BaseException, severity: Severity = "ERROR") -> bool:
        """Tell of an exception, soon; returns at once."""
        told = events.of_exception(exception, severity, _now())
        return self._tell([told], flush=True) is not None

    async def log_fatal_exception(
        self, exception: BaseException, severity: Severity = "ERROR"
    ) -> bool:
        """Tell of an exception that ends the session, and wait until that is sent, but not long."""
        sending = self._tell(self._fatal(exception, severity), flush=True)
        if sending is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                await asyncio.shield(asyncio.wrap_future(sending))
        return True

    def log_fatal_exception_sync(
        self, exception: BaseException, severity: Severity = "ERROR"
    ) -> bool:
        """Tell of an exception that ends the session.

        Waits until that is sent, but not long, and not where an event loop runs.
        """
        sending = self._tell(self._fatal(exception, severity), flush=True)
        if sending is None:
            return False
        if not _in_event_loop():
            with contextlib.suppress(FutureTimeoutError):
                sending.result(self._patience_s)
        return True

    @contextlib.contextmanager
    def capture_exceptions(
        self,
        fatal: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        severity: Severity = "ERROR",
    ) -> Iterator[None]:
        """Tell of the exceptions of a block, and raise them.

        Args:
            fatal: They end the session.
            severity: How bad they are.
        """
        try:
            yield
        except Exception as error:
            tell = self.log_fatal_exception_sync if fatal else self.log_exception_sync
            tell(error, severity)
            raise

    @contextlib.asynccontextmanager
    async def acapture_exceptions(
        self,
        fatal: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        severity: Severity = "ERROR",
    ) -> AsyncIterator[None]:
        """Async twin of :meth:`capture_exceptions`."""
        try:
            yield
        except Exception as error:
            tell = self.log_fatal_exception if fatal else self.log_exception
            await tell(error, severity)
            raise

    def stop(self) -> None:
        """Take no more events; idempotent."""
        self._stopped = True

    async def close(self) -> None:
        """Send what is queued, but wait not long, and take no more events; idempotent."""
        sending = self._tell([], flush=True)
        self.stop()
        if sending is not None:
            await asyncio.wait([asyncio.wrap_future(sending)], timeout=self._patience_s)

    def _fatal(self, exception: BaseException, severity: Severity) -> list[TelemetryEvent]:
        now = _now()
        return [
            events.of_exception(exception, severity, now),
            events.session_end(now, now - self._started_at),
        ]

    def _tell(self, told: list[TelemetryEvent], *, flush: bool = False) -> Future[bool] | None:
        reporter = None if self._stopped else self._reporter()
        with self._lock:
            if reporter is None or self._num_pending + len(told) > MAX_QUEUED:
                return None
            self._num_pending += len(told)
        return Bridge.get().submit_detached(self._hand_over(reporter, told, flush=flush))

    async def _hand_over(
        self, reporter: ReporterPort, told: list[TelemetryEvent], *, flush: bool
    ) -> bool:
        try:
            return await reporter.tell(told, flush=flush)
        except TinkerError:  # the session's actor is gone: nobody is told
            return False
        finally:
            with self._lock:
                self._num_pending -= len(told)


@overload
def capture_exceptions(
    func: Callable[P, R], *, fatal: bool = False, severity: Severity = "ERROR"
) -> Callable[P, R]: ...


@overload
def capture_exceptions(
    *, fatal: bool = False, severity: Severity = "ERROR"
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def capture_exceptions(
    func: Callable[P, R] | None = None, *, fatal: bool = False, severity: Severity = "ERROR"
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Tell of the exceptions of a method, and raise them: a decorator, with or without arguments.

    Args:
        func: A method of something that has ``get_telemetry()``.
        fatal: They end the session.
        severity: How bad they are.
    """
    if func is None:
        return functools.partial(_capturing, fatal=fatal, severity=severity)
    return _capturing(func, fatal=fatal, severity=severity)


def _capturing(func: Callable[P, R], *, fatal: bool, severity: Severity) -> Callable[P, R]:
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - the method's
            telemetry = _telemetry_of(args)
            method = cast("Callable[..., Awaitable[Any]]", func)
            if telemetry is None:
                return await method(*args, **kwargs)
            async with telemetry.acapture_exceptions(fatal=fatal, severity=severity):
                return await method(*args, **kwargs)

        return cast("Callable[P, R]", run_async)

    @functools.wraps(func)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        telemetry = _telemetry_of(args)
        if telemetry is None:
            return func(*args, **kwargs)
        with telemetry.capture_exceptions(fatal=fatal, severity=severity):
            return func(*args, **kwargs)

    return run


def _telemetry_of(args: tuple[Any, ...]) -> Telemetry | None:
    if args and isinstance(args[0], TelemetryProvider):
        telemetry: Telemetry | None = args[0].get_telemetry()
        return telemetry
    return None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _now() -> datetime:
    return datetime.now(UTC)

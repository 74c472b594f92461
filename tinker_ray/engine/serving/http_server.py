"""uvicorn as the engine runs it: our signals, our shutdown, one ready line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from starlette.types import ASGIApp

_GRACE_S = 2
_BACKLOG = 2048
_KEEP_ALIVE_S = 75


class HttpServer(uvicorn.Server):
    """Serves an app until a signal or :meth:`stop`; a second signal does not wait.

    Args:
        app: The app.
        signals: The signals that end it.
        on_ready: Called when the server answers.
        on_stop: Called when it is told to stop, before it waits for requests under way, with the
            name of the signal.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        signals: Sequence[signal.Signals],
        on_ready: Callable[[], None],
        on_stop: Callable[[str], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            backlog=_BACKLOG,
            lifespan="off",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        super().__init__(config)
        self._signals = signals
        self._on_ready = on_ready
        self._on_stop = on_stop

    def stop(self, number: signal.Signals) -> None:
        """End serving because of a signal; at the second call at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_stop(number.name)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; uvicorn itself would raise it again at the end."""
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self.stop, number)
        try:
            yield
        finally:
            for number in self._signals:
                loop.remove_signal_handler(number)

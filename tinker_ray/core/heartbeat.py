"""Keeping a session alive: a sign of life every 10 seconds, for as long as somebody uses it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tinker_ray.core.sdk_method import own_context
from tinker_ray.errors import APIStatusError, StaleHandleError, TinkerError
from tinker_ray.wire import endpoint, status

if TYPE_CHECKING:
    from tinker_ray.core.link import Link

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
SILENCE_WARNING_S = 120.0


class _Ignored(BaseModel):
    pass


class Heartbeat:
    """The task that keeps a session alive, and its end.

    It warns at each beat once none has succeeded for 2 minutes, and ends by itself when the service
    says that the session is over (410), or when the link is closed. Several processes may keep the
    same session alive.
    """

    def __init__(self, link: Link, session_id: str) -> None:
        self._link = link
        self._session_id = session_id
        self._task = asyncio.get_running_loop().create_task(
            self._beat(), name="heartbeat", context=own_context()
        )

    def __repr__(self) -> str:
        """Show the session and whether it is kept alive."""
        return f"Heartbeat({self._session_id!r}, alive={self.alive})"

    @property
    def alive(self) -> bool:
        """Whether it still beats."""
        return not self._task.done()

    async def stop(self) -> None:
        """End it; idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        clock = self._link.clock
        last_success = clock.now()
        while True:
            await clock.sleep(HEARTBEAT_S)
            try:
                await self._link.call(
                    endpoint.SESSION_HEARTBEAT, _Ignored, {"session_id": self._session_id}
                )
                last_success = clock.now()
            except StaleHandleError:
                return
            except TinkerError as error:
                if isinstance(error, APIStatusError) and error.status_code == status.GONE:
                    logger.info("session %s is finished", self._session_id)
                    return
                self._warn(clock.now() - last_success, error)

    def _warn(self, silence_s: float, error: TinkerError) -> None:
        if silence_s > SILENCE_WARNING_S:
            logger.warning(
                "no heartbeat of session %s has succeeded for %.0f s, and it will be ended if this "
                "goes on: %s",
                self._session_id,
                silence_s,
                error,
            )

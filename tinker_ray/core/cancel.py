"""Telling the service which samples nobody waits for any more, so that it stops drawing them.

Best effort: what cannot be told within the usual retries is dropped, and the service finds out when
the session ends. Cancellations go out side by side, in batches as large as the service allows. A
sample that was given up before its promise arrived is asked for once more: the service knows it by
its number, gives the same promise, and that is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from tinker_ray.core.link import Promise, plain_body
from tinker_ray.core.sdk_method import own_context
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.core.link import Link

logger = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[], Awaitable[Promise]]
"""Sends a request again."""


class CancelQueue:
    """Cancels samples in the background, if the service wants to be told."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[str | Ask] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show how many are still to be told."""
        return f"CancelQueue({len(self._waiting)})"

    def add(self, given_up: str | Ask) -> None:
        """Note that nobody waits for a sample any more; returns at once.

        Args:
            given_up: The promise, or what asks for it again if it has not arrived.
        """
        if self._closed or not self._link.flags.dynamic.sample_cancel_enabled:
            return
        self._waiting.append(given_up)
        if self._draining is None:
            self._draining = asyncio.create_task(
                self._drain(), name="cancel", context=own_context()
            )

    async def aclose(self) -> None:
        """Drop what is still to be told: the session ends anyway. Idempotent."""
        self._closed = True
        self._waiting.clear()
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)

    async def _drain(self) -> None:
        while self._waiting:
            size = max(self._link.flags.dynamic.sample_cancel_max_batch_size, 1)
            batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
            await asyncio.gather(*map(self._cancel, batch))
        self._draining = None

    async def _cancel(self, given_up: str | Ask) -> None:
        request_id = given_up if isinstance(given_up, str) else "without an answer"
        try:
            if not isinstance(given_up, str):
                request_id = (await given_up()).request_id
            body = plain_body(endpoint.CANCEL_FUTURE, {"request_id": request_id})
            await self._link.send(endpoint.CANCEL_FUTURE, body)
        except Exception as error:  # noqa: BLE001 - the border of a background task
            logger.warning("sample %s could not be cancelled: %s", request_id, error)

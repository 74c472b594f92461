"""One poll for all samples of a sampler, where the service offers it, in place of one for each.

The poll says which promises are kept; each result is then fetched as always. Invariants: whoever
waits is woken by the completion of their promise or by the end of the polls; a result that was
fetched is reported until a poll has carried the report. Nothing runs while nobody waits and nothing
is to be reported.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tinker_ray.core.link import plain_body, validate
from tinker_ray.core.sdk_method import own_context
from tinker_ray.errors import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    BillingError,
    StaleHandleError,
    TinkerError,
)
from tinker_ray.transport.billing import ASK_AGAIN_S
from tinker_ray.types import FutureFinished, FuturesRetrieveResponse
from tinker_ray.wire import endpoint, status

if TYPE_CHECKING:
    from tinker_ray.core.link import Link
    from tinker_ray.types import FutureCompletion

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
BAD_REQUEST_RETRIES = 3


class FuturesPoller:
    """Polls for one sampling session and one of the clients that share it.

    Args:
        link: The service.
        sampling_session_id: The session.
        clone: The client: its samples are numbered from ``clone · 10⁹``.
    """

    def __init__(self, link: Link, sampling_session_id: str, clone: int) -> None:
        self._link = link
        self._sampling_session_id = sampling_session_id
        self._clone = clone
        self._cursor = 0
        self._acknowledged = 0
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._completed: dict[str, int] = {}
        self._abandoned: set[str] = set()
        self._retrieved: set[str] = set()
        self._bad_requests = 0
        self._failure: Exception | None = None
        self._polling: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show who waits and what is to be reported."""
        return (
            f"FuturesPoller({self._sampling_session_id!r}, waiting={len(self._waiting)}, "
            f"retrieved={len(self._retrieved)}, cursor={self._cursor})"
        )

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is to be reported."""
        reported = not self._retrieved and self._cursor <= self._acknowledged
        return not self._waiting and not self._completed and reported

    async def wait_for(self, request_id: str) -> int:
        """Wait until a promise is kept or broken, and return the size of a result, 0 if unknown.

        Raises:
            TinkerError: The service refuses to be polled; a completion that it told of before
                counts nevertheless.
        """
        if request_id in self._completed:
            return self._completed.pop(request_id)
        if self._failure is not None:
            raise self._ended(self._failure) from self._failure
        completed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = completed
        self._wake()
        try:
            return await completed
        except asyncio.CancelledError:
            if self._waiting.pop(request_id, None) is not None:
                self._abandoned.add(request_id)
            raise

    def mark_retrieved(self, request_id: str) -> None:
        """Have the next poll report that a result or an error was fetched and may be forgotten."""
        if self._failure is None:
            self._retrieved.add(request_id)
            self._wake()

    async def aclose(self) -> None:
        """Stop polling, and wake who waits with an error; idempotent."""
        self._fail(StaleHandleError("sampling was closed while the sample was under way"))
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    def _wake(self) -> None:
        if self._polling is None:
            self._polling = asyncio.create_task(
                self._poll_while_needed(), name="futures poller", context=own_context()
            )

    async def _poll_while_needed(self) -> None:
        while self._failure is None and not self._is_done():
            try:
                await self._poll()
            except Exception as error:  # noqa: BLE001 - the border of a background task
                if (pause_s := self._pause_after(error)) is None:
                    logger.error("%s", self._ended(error))  # noqa: TRY400 - it is raised, too
                    self._fail(error)
                    break
                await self._link.clock.sleep(pause_s)
        self._polling = None

    def _is_done(self) -> bool:
        reported = not self._retrieved and self._cursor <= self._acknowledged
        return not self._waiting and reported

    async def _poll(self) -> None:
        """Poll once and wake those whose promises are kept or broken.

        Raises:
            TinkerError: There was no answer, or it was a refusal.
        """
        cursor, retrieved = self._cursor, sorted(self._retrieved)
        reports_only = not self._waiting
        body: dict[str, object] = {
            "target": {
                "type": "sampling_session",
                "sampling_session_id": self._sampling_session_id,
                "cloned_sampler_id": self._clone,
            },
            "prev_cursor": cursor,
            "retrieved_request_ids": retrieved,
        }
        if reports_only:
            body["timeout"] = 0.0
        response = await self._link.send(
            endpoint.RETRIEVE_FUTURES,
            plain_body(endpoint.RETRIEVE_FUTURES, body),
            timeout_s=endpoint.ACK_ONLY_TIMEOUT_S if reports_only else None,
        )
        answer = validate(response, FuturesRetrieveResponse)
        self._bad_requests = 0
        self._retrieved.difference_update(retrieved)
        self._acknowledged = max(self._acknowledged, cursor)
        self._cursor = answer.cursor
        for completion in answer.completions:
            self._complete(completion)

    def _complete(self, completion: FutureCompletion) -> None:
        size_bytes = 0
        if isinstance(completion, FutureFinished):
            size_bytes = completion.response_payload_uncompressed_size or 0
        waiting = self._waiting.pop(completion.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(size_bytes)
        elif completion.request_id in self._abandoned:
            self._abandoned.discard(completion.request_id)
        else:  # its promise is still on the way to us
            self._completed[completion.request_id] = size_bytes

    def _pause_after(self, error: Exception) -> float | None:
        """Return how long to wait after a failed poll; None ends the polls."""
        now = self._link.clock.now()
        if isinstance(error, BillingError) and self._link.patience.waits_for_billing(error, now):
            return ASK_AGAIN_S
        if isinstance(error, APIConnectionError):
            return PAUSE_S
        if isinstance(error, BadRequestError) and self._bad_requests < BAD_REQUEST_RETRIES:
            self._bad_requests += 1
            return PAUSE_S
        passing = isinstance(error, APIStatusError) and status.is_retryable(error.status_code)
        return PAUSE_S if passing else None

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        waiting_ones, self._waiting = list(self._waiting.values()), {}
        for waiting in waiting_ones:
            if not waiting.done():
                ended = self._ended(error)
                ended.__cause__ = error
                waiting.set_exception(ended)

    def _ended(self, error: Exception) -> TinkerError:
        if isinstance(error, StaleHandleError):
            return StaleHandleError(str(error))
        message = (
            f"the service refuses to be polled for the samples of {self._sampling_session_id} "
            f"(client {self._clone}): {error}"
        )
        return TinkerError(message)

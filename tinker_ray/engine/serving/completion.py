"""What clients learn by one poll of a whole sampling session: which of their samples have ended.

A feed belongs to one client of a sampling session and starts with the client's first poll. Knows
nothing of HTTP or of results. Lives on one event loop.

Invariants: the cursor of a feed never falls, across restarts neither; a completion is told in every
poll until one confirms it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Target: TypeAlias = tuple[str, int]
"""A sampling session and the number of one of its clients."""

CLONE_STRIDE = 1_000_000_000
"""Clients number their samples from ``clone * CLONE_STRIDE``."""


def target_of(sampling_session_id: str | None, seq_id: int | None) -> Target | None:
    """Return whose poll tells of a sample."""
    if sampling_session_id is None or seq_id is None:
        return None
    return sampling_session_id, seq_id // CLONE_STRIDE


@dataclass(frozen=True, slots=True)
class Completion:
    """A sample that ended; ``size_bytes`` of its result, None if it failed."""

    request_id: str
    size_bytes: int | None

    def value(self) -> dict[str, Any]:
        """Give it as JSON."""
        if self.size_bytes is None:
            return {"state": "failed", "request_id": self.request_id}
        return {
            "state": "finished",
            "request_id": self.request_id,
            "response_payload_uncompressed_size": self.size_bytes,
        }


class CompletionFeed:
    """The completions of one client's samples.

    Args:
        cursor: Where it starts.
    """

    def __init__(self, cursor: int) -> None:
        self._cursor = cursor
        self._items: deque[tuple[int, Completion]] = deque()
        self._news = asyncio.Event()

    def post(self, completion: Completion) -> None:
        """Tell of one more completion."""
        self._cursor += 1
        self._items.append((self._cursor, completion))
        self._news.set()

    def confirm(self, cursor: int) -> list[str]:
        """Drop what was told up to a cursor; return the request ids."""
        confirmed = []
        while self._items and self._items[0][0] <= cursor:
            confirmed.append(self._items.popleft()[1].request_id)
        # Beyond ours if it is of an engine whose clock was ahead: go on from there.
        self._cursor = max(self._cursor, cursor)
        return confirmed

    async def read(self, timeout_s: float) -> tuple[list[Completion], int]:
        """Return what is not confirmed as soon as there is something, and the cursor."""
        if not self._items and timeout_s > 0:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        return [completion for _, completion in self._items], self._cursor

    def release(self) -> None:
        """Wake who waits, with nothing."""
        self._news.set()


class CompletionBoard:
    """The feeds of an engine.

    Args:
        now: The time; its microseconds are the first cursor, so that a later engine's are higher.
        max_feeds: Feeds held at once; the one that was polled longest ago goes first, and starts
            anew with the next poll.
    """

    def __init__(self, now: float | None = None, *, max_feeds: int = 10_000) -> None:
        self._first_cursor = int((time.time() if now is None else now) * 1e6)
        self._max_feeds = max_feeds
        self._feeds: OrderedDict[Target, CompletionFeed] = OrderedDict()

    def find(self, target: Target) -> CompletionFeed | None:
        """Return a feed that was opened."""
        if (feed := self._feeds.get(target)) is not None:
            self._feeds.move_to_end(target)
        return feed

    def open(self, target: Target, cursor: int, ended: Iterable[Completion]) -> CompletionFeed:
        """Start a feed above a cursor, with what has ended before."""
        feed = self._feeds[target] = CompletionFeed(max(self._first_cursor, cursor))
        for completion in ended:
            feed.post(completion)
        if len(self._feeds) > self._max_feeds:
            _, idle = self._feeds.popitem(last=False)
            idle.release()
        return feed

    def post(self, target: Target, completion: Completion) -> None:
        """Tell of a completion, if anybody polls for it."""
        if (feed := self._feeds.get(target)) is not None:
            feed.post(completion)

    def release(self) -> None:
        """Wake everybody who waits."""
        for feed in self._feeds.values():
            feed.release()

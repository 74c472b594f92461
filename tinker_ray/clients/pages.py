"""Lists of the service from their first item to their last, fetched page by page.

Knows nothing of what is listed. Items that move to a later page while one reads on are given once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Iterator

    from tinker_ray.clients.api_future import APIFuture

T = TypeVar("T")

PAGE = 100
"""Items that one request asks for."""


class Pages(Generic[T]):
    """All items of a list; iterate with ``for`` or ``async for``, as often as you like.

    Args:
        fetch: Asks for a page, by its size and its first item.
        key: Tells items apart.
        page_size: Items per request, at least 1.

    Raises:
        ValueError: ``page_size`` is not positive.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], APIFuture[list[T]]],
        key: Callable[[T], Hashable],
        page_size: int = PAGE,
    ) -> None:
        if page_size < 1:
            message = f"page_size={page_size}: ask for at least 1 item at a time"
            raise ValueError(message)
        self._fetch = fetch
        self._key = key
        self._page_size = page_size

    def __iter__(self) -> Iterator[T]:
        """Give the items one by one; blocks while a page is fetched."""
        seen: set[Hashable] = set()
        offset = 0
        while True:
            page = self._fetch(self._page_size, offset).result()
            yield from self._new(page, seen)
            if len(page) < self._page_size:
                return
            offset += len(page)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Give the items one by one."""
        seen: set[Hashable] = set()
        offset = 0
        while True:
            page = await self._fetch(self._page_size, offset)
            for item in self._new(page, seen):
                yield item
            if len(page) < self._page_size:
                return
            offset += len(page)

    def _new(self, page: list[T], seen: set[Hashable]) -> list[T]:
        new = [item for item in page if self._key(item) not in seen]
        seen.update(self._key(item) for item in new)
        return new

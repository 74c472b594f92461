"""Clients that can also be awaited, as scripts of the current upstream generation do.

There, creating a client returns a future of it; in the older generation it returns the client.
Ours is the client, and it answers to both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Generator


class Ready:
    """A client that is its own finished future."""

    def __await__(self) -> Generator[Any, None, Self]:
        """Give the client at once."""
        return self._itself().__await__()

    def result(self, timeout: float | None = None) -> Self:  # noqa: ARG002 - a future's signature
        """Give the client at once."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:  # noqa: ARG002
        """Give the client at once."""
        return self

    async def _itself(self) -> Self:
        return self

"""Requests and answers as plain values, and what a transport is.

Knows nothing of any HTTP library: that is the implementations' business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tinker_ray.wire.codec import JSON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from tinker_ray.wire.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Request:
    """One call of an endpoint.

    Attributes:
        path: Below the base URL, already filled in.
        headers: Beside those that every request carries.
        timeout_s: Read timeout; None takes the endpoint's.
    """

    endpoint: Endpoint
    path: str
    content: bytes = field(default=b"", repr=False)
    content_type: str = JSON
    accept: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int] = field(default_factory=dict)
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = field(default=b"", repr=False)

    @property
    def content_type(self) -> str:
        """What the content is."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose content is still to come; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes] = field(repr=False)


class Transport(Protocol):
    """Sends single attempts.

    Retrying is not its business: see :func:`tinker_ray.transport.retry.send`. A transport belongs
    to the event loop that first uses it.
    """

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send a request once and return the answer, whatever its status.

        Raises:
            APIConnectionError: There was no answer.
            APITimeoutError: There was none in time.
            ConfigurationError: It cannot be sent.
            APIStatusError: There is no credential to send it with, because the service refused one.
            StaleHandleError: The transport is closed.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        ...


class Streams(Protocol):
    """A transport that hands out answers piece by piece, too."""

    def stream(self, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Stream]:
        """Get what is at any address, piece by piece; only the service itself is told who asks.

        Raises:
            APIConnectionError: There was no answer, or it broke off.
            ConfigurationError: That is no HTTP address.
            StaleHandleError: The transport is closed.
        """
        ...

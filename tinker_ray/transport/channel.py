"""One HTTP exchange: what a transport needs of an HTTP library, and no more.

A channel keeps connections and turns its library's exceptions into ours. It follows no redirects,
judges no status and knows no credentials: those are :mod:`tinker_ray.transport.http`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tinker_ray.errors import APIConnectionError, APITimeoutError, ConfigurationError
from tinker_ray.wire.endpoint import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from tinker_ray.transport.message import Response, Stream


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with everything that goes onto the wire.

    Attributes:
        url: Without the query.
        headers: All but what HTTP itself needs; never shown, as there are secrets among them.
        timeout_s: For the whole answer, connecting included.
        traffic: Classes of traffic never wait for each other's connections.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(default=b"", repr=False)
    query: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    timeout_s: float = 60.0
    traffic: Traffic = Traffic.TRAIN


class Channel(Protocol):
    """Sends requests and hands out answers."""

    async def send(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status.

        The connection of an answer that a proxy gave in the service's place is not used again.

        Raises:
            APIConnectionError: There was no answer.
            APITimeoutError: There was none in time.
            ConfigurationError: The URL cannot be sent.
        """
        ...

    def stream(self, exchange: Exchange) -> AbstractAsyncContextManager[Stream]:
        """Send a request and hand out the answer's content piece by piece.

        Raises:
            APIConnectionError: There was no answer, or it broke off.
            ConfigurationError: The URL cannot be sent.
        """
        ...

    @property
    def load(self) -> Mapping[str, Sequence[int]]:
        """How many requests each client of a class of traffic has under way."""
        ...

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        ...


def no_answer(exchange: Exchange, error: Exception, *, timed_out: bool) -> APIConnectionError:
    """Put a library's exception into our words; the query may hold a signature and stays out."""
    target, kind = exchange.url.partition("?")[0], type(error).__name__
    if timed_out:
        message = f"no answer from {target} within {exchange.timeout_s:g} s ({kind})"
        return APITimeoutError(message)
    return APIConnectionError(f"no answer from {target}: {kind}: {error}")


def no_address(exchange: Exchange, error: Exception) -> ConfigurationError:
    """Say that a URL cannot be sent."""
    return ConfigurationError(f"{exchange.url.partition('?')[0]!r} cannot be a path: {error}")

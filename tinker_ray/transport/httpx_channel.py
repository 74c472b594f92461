"""HTTP through httpx: pools of clients per class of traffic.

The only module that imports httpx. Pools are lists of clients with a fixed width each: httpx's own
pool slows down quadratically with the number of requests in flight.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from tinker_ray.transport.channel import no_address, no_answer
from tinker_ray.transport.message import Response, Stream
from tinker_ray.wire import status
from tinker_ray.wire.endpoint import CLIENT_WIDTH, CONNECT_TIMEOUT_S, DEFAULT_TIMEOUT_S, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tinker_ray.transport.channel import Exchange

_KEEP_ALIVE_CONNECTIONS = 20


class _Client:
    """An HTTP client and the number of requests that it carries at this moment."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.in_flight = 0


class _Pool:
    """The clients of a class of traffic."""

    def __init__(self, width: int, make_client: Callable[[], httpx.AsyncClient]) -> None:
        self.clients: list[_Client] = []
        self._width = width
        self._make_client = make_client
        self._retired: list[_Client] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[_Client]:
        """Lend the first client that has room."""
        for client in self.clients:
            if client.in_flight < self._width:
                break
        else:
            client = _Client(self._make_client())
            self.clients.append(client)
        client.in_flight += 1
        try:
            yield client
        finally:
            client.in_flight -= 1

    def retire(self, client: _Client) -> None:
        """Lend a client no more; what it carries ends on it."""
        if client in self.clients:
            self.clients.remove(client)
            self._retired.append(client)

    async def close_retired(self) -> None:
        """Close the clients that were given up, as soon as they carry nothing any more."""
        idle = [client for client in self._retired if client.in_flight == 0]
        self._retired = [client for client in self._retired if client.in_flight > 0]
        for client in idle:
            await client.client.aclose()

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        clients = self.clients + self._retired
        self.clients, self._retired = [], []
        for client in clients:
            await client.client.aclose()


class HttpxChannel:
    """A channel over httpx.

    Args:
        make_client: Builds an ``httpx.AsyncClient``; tests pass one over an ASGI app.
    """

    def __init__(self, make_client: Callable[[], httpx.AsyncClient] | None = None) -> None:
        make_client = make_client or _default_client
        self._pools = {traffic: _Pool(CLIENT_WIDTH[traffic], make_client) for traffic in Traffic}

    @property
    def load(self) -> Mapping[str, list[int]]:
        """How many requests each client of a class of traffic has under way."""
        return {
            str(traffic): [client.in_flight for client in pool.clients]
            for traffic, pool in self._pools.items()
            if pool.clients
        }

    async def send(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status."""
        pool = self._pools[exchange.traffic]
        with pool.lend() as client, _no_httpx(exchange):
            answer = await client.client.request(
                exchange.method,
                exchange.url,
                content=exchange.content,
                params=dict(exchange.query) or None,
                headers=dict(exchange.headers),
                timeout=httpx.Timeout(exchange.timeout_s, connect=CONNECT_TIMEOUT_S),
                follow_redirects=False,
            )
            rejected = status.is_proxy_rejection(answer.status_code, answer.headers)
            if rejected:
                pool.retire(client)
        if rejected:
            await pool.close_retired()
        return Response(answer.status_code, dict(answer.headers), answer.content)

    @asynccontextmanager
    async def stream(self, exchange: Exchange) -> AsyncIterator[Stream]:
        """Send a request and hand out the answer's content piece by piece."""
        with self._pools[exchange.traffic].lend() as client, _no_httpx(exchange):
            async with client.client.stream(
                exchange.method,
                exchange.url,
                params=dict(exchange.query) or None,
                headers=dict(exchange.headers),
                timeout=httpx.Timeout(exchange.timeout_s, connect=CONNECT_TIMEOUT_S),
                follow_redirects=False,
            ) as answer:
                yield Stream(answer.status_code, dict(answer.headers), answer.aiter_raw())

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        for pool in self._pools.values():
            await pool.aclose()


@contextlib.contextmanager
def _no_httpx(exchange: Exchange) -> Iterator[None]:
    """Turn httpx's exceptions into ours."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise no_address(exchange, error) from None
    except httpx.HTTPError as error:
        timed_out = isinstance(error, httpx.TimeoutException)
        raise no_answer(exchange, error, timed_out=timed_out) from None


def _default_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=DEFAULT_TIMEOUT_S,
        limits=httpx.Limits(
            max_connections=1000, max_keepalive_connections=_KEEP_ALIVE_CONNECTIONS
        ),
    )

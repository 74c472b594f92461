"""HTTP through aiohttp, whose cost per request is a tenth of httpx's with hundreds in flight.

The only module that imports aiohttp, and only when the first channel is made. One session serves
all classes of traffic: it opens as many connections as there are requests under way, so that none
waits for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from tinker_ray.config import proxy_for
from tinker_ray.transport.channel import no_address, no_answer
from tinker_ray.transport.message import Response, Stream
from tinker_ray.wire import status
from tinker_ray.wire.endpoint import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tinker_ray.transport.channel import Exchange

_KEEP_ALIVE_S = 15.0
_PIECE_BYTES = 1 << 16


class _Session:
    """A session and the number of requests that it carries at this moment."""

    def __init__(self, *, secure: bool) -> None:
        self.in_flight = 0
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ssl=_certificates() if secure else True, keepalive_timeout=_KEEP_ALIVE_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
        )


class AiohttpChannel:
    """A channel over aiohttp. Belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._session: _Session | None = None
        self._retired: list[_Session] = []
        self._under_way: Counter[str] = Counter()
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._proxies: dict[str, str | None] = {}

    @property
    def load(self) -> Mapping[str, list[int]]:
        """How many requests are under way in each class of traffic that has any."""
        return {str(traffic): [count] for traffic, count in self._under_way.items() if count}

    async def send(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status."""
        async with self._lend(exchange) as session:
            try:
                answer = await self._request(session, exchange)
                headers = {name.lower(): value for name, value in answer.headers.items()}
                content = await answer.read()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise _ours(exchange, error) from None
            if status.is_proxy_rejection(answer.status, headers):
                self._retire(session)
        return Response(answer.status, headers, content)

    @asynccontextmanager
    async def stream(self, exchange: Exchange) -> AsyncIterator[Stream]:
        """Send a request and hand out the answer's content piece by piece."""
        async with self._lend(exchange) as session:
            with _no_aiohttp(exchange):
                async with await self._request(session, exchange, whole=False) as answer:
                    headers = {name.lower(): value for name, value in answer.headers.items()}
                    yield Stream(answer.status, headers, _pieces(exchange, answer))

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        sessions = [*self._retired, *([] if self._session is None else [self._session])]
        self._session, self._retired = None, []
        for session in sessions:
            await session.http.close()

    @asynccontextmanager
    async def _lend(self, exchange: Exchange) -> AsyncIterator[_Session]:
        session = self._session
        if session is None:
            session = self._session = _Session(secure=exchange.url.startswith("https"))
        self._under_way[exchange.traffic] += 1
        session.in_flight += 1
        try:
            yield session
        finally:
            self._under_way[exchange.traffic] -= 1
            session.in_flight -= 1
            if session.in_flight == 0 and session in self._retired:
                self._retired.remove(session)
                await session.http.close()

    def _retire(self, session: _Session) -> None:
        """Lend a session no more: what it carries ends on it."""
        if self._session is session:
            self._session = None
            self._retired.append(session)

    async def _request(
        self, session: _Session, exchange: Exchange, *, whole: bool = True
    ) -> aiohttp.ClientResponse:
        return await session.http.request(
            exchange.method,
            exchange.url,
            params=exchange.query or None,
            data=exchange.content or None,
            headers=exchange.headers,
            timeout=self._timeout(exchange.timeout_s, whole=whole),
            allow_redirects=False,
            proxy=self._proxy(exchange.url),
        )

    def _timeout(self, seconds: float, *, whole: bool) -> aiohttp.ClientTimeout:
        """For the whole answer, or for each piece of it."""
        key = seconds if whole else -seconds
        if key not in self._timeouts:
            self._timeouts[key] = aiohttp.ClientTimeout(
                total=seconds if whole else None,
                sock_read=None if whole else seconds,
                sock_connect=CONNECT_TIMEOUT_S,
            )
        return self._timeouts[key]

    def _proxy(self, url: str) -> str | None:
        scheme, _, rest = url.partition("://")
        origin = f"{scheme}://{rest.partition('/')[0]}"
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(origin)
        return self._proxies[origin]


async def _pieces(exchange: Exchange, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with _no_aiohttp(exchange):
        async for piece in answer.content.iter_chunked(_PIECE_BYTES):
            yield piece


@contextlib.contextmanager
def _no_aiohttp(exchange: Exchange) -> Iterator[None]:
    """Turn aiohttp's exceptions into ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _ours(exchange, error) from None


def _ours(exchange: Exchange, error: Exception) -> Exception:
    if isinstance(error, aiohttp.InvalidURL) or not isinstance(
        error, aiohttp.ClientError | TimeoutError
    ):
        return no_address(exchange, error)
    timed_out = isinstance(error, asyncio.TimeoutError)
    return no_answer(exchange, error, timed_out=timed_out)


def _certificates() -> ssl.SSLContext:
    """Trust what the machine trusts, and the certificate authorities that certifi knows."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context

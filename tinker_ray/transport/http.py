"""HTTP through httpx: pools of clients per traffic class, the headers that every request carries.

The only module that imports httpx. Pools are lists of clients with a fixed width each: httpx's own
pool slows down quadratically with the number of requests in flight.
"""

from __future__ import annotations

import contextlib
import logging
import platform
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from tinker_ray.config import Secret
from tinker_ray.errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    StaleHandleError,
)
from tinker_ray.transport.auth import ApiKey, check_header, resolve
from tinker_ray.transport.message import Response, Stream
from tinker_ray.version import __version__
from tinker_ray.wire import status
from tinker_ray.wire.endpoint import CLIENT_WIDTH, CONNECT_TIMEOUT_S, DEFAULT_TIMEOUT_S, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.message import Request

logger = logging.getLogger(__name__)

REJECTIONS = 16
"""Empty 400s of a proxy that a traffic class takes for lost connections. Each success gives one
back; when none is left, such an answer is believed."""
_KEEP_ALIVE_CONNECTIONS = 20
_KEY_HEADER = "x-api-key"
_SECRET_HEADERS = (_KEY_HEADER, "x-tinker-weights-access-token")
_ENVIRONMENT = {
    "user-agent": f"tinker-ray/Python {__version__}",
    "x-stainless-lang": "python",
    "x-stainless-package-version": __version__,
    "x-stainless-os": platform.system(),
    "x-stainless-arch": platform.machine(),
    "x-stainless-runtime": platform.python_implementation(),
    "x-stainless-runtime-version": platform.python_version(),
    "x-stainless-async": "async:asyncio",
}


class _Client:
    """An HTTP client and the number of requests that it carries at this moment."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.in_flight = 0


class _Pool:
    """The clients of a traffic class."""

    def __init__(self, width: int, make_client: Callable[[], httpx.AsyncClient]) -> None:
        self.clients: list[_Client] = []
        self._width = width
        self._make_client = make_client
        self._rejections_left = REJECTIONS
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

    def is_rejection(self, client: _Client, answer: httpx.Response) -> bool:
        """Tell whether an answer is a proxy's and to be taken for a lost connection.

        Its connection is given up then; other requests that it carries end on it.
        """
        if not status.is_proxy_rejection(answer.status_code, answer.headers):
            if status.is_success(answer.status_code):
                self._rejections_left = min(self._rejections_left + 1, REJECTIONS)
            return False
        if client in self.clients:
            self.clients.remove(client)
            self._retired.append(client)
        if self._rejections_left == 0:
            return False
        self._rejections_left -= 1
        return True

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


class HttpTransport:
    """Sends requests to one service.

    Args:
        base_url: The service, path prefix included; a prefix is kept.
        credentials: A key, or what gives the credential of each request. It is sent as
            ``X-API-Key``, to this service only: a redirect elsewhere goes without it.
        cloudflare: Client id and secret of Cloudflare Access.
        default_headers: Sent with every request, instead of ours of the same name, but for the key;
            to this service only.
        default_query: Added to every query.
        timeout_s: For requests without a timeout of their own.
        make_client: Builds an ``httpx.AsyncClient``; tests pass one over an ASGI app.

    Raises:
        ConfigurationError: ``base_url`` is no HTTP address, or a secret cannot be in a header.
    """

    def __init__(  # noqa: PLR0913 - what may be said of a connection
        self,
        base_url: str,
        credentials: Credentials | Secret,
        *,
        cloudflare: tuple[str, Secret] | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        make_client: Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        self.credentials = ApiKey(credentials) if isinstance(credentials, Secret) else credentials
        self._base_url = base_url.rstrip("/")
        self._origin = _origin_of(base_url)
        self._private = _private_headers(default_headers or {}, cloudflare)
        self._query = dict(default_query or {})
        self._timeout_s = timeout_s or DEFAULT_TIMEOUT_S
        self._make_client = make_client or _default_client
        self._pools = {
            traffic: _Pool(CLIENT_WIDTH[traffic], self._new_client) for traffic in Traffic
        }
        self._notes: set[str] = set()
        self._closed = False

    @classmethod
    def from_settings(
        cls, settings: Settings, credentials: Credentials | None = None
    ) -> HttpTransport:
        """Connect to the service that the settings name, by default with their own credentials.

        Raises:
            ConfigurationError: There is no API key, or it or the address cannot work.
        """
        return cls(
            settings.base_url,
            resolve(settings) if credentials is None else credentials,
            cloudflare=settings.cloudflare,
            default_headers=settings.default_headers,
            default_query=settings.default_query,
            timeout_s=settings.timeout_s,
        )

    def __repr__(self) -> str:
        """Show the service and what is in flight, never the key."""
        load = {
            str(traffic): [client.in_flight for client in pool.clients]
            for traffic, pool in self._pools.items()
            if pool.clients
        }
        return f"HttpTransport({self._base_url!r}, in_flight={load})"

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send a request once and return the answer, whatever its status.

        A request whose credential the service rejects as such is sent again with a new one, if
        there is one.

        Raises:
            APIConnectionError: There was no answer.
            APITimeoutError: There was none in time.
            ConfigurationError: The path cannot be sent, or there is no credential.
            APIStatusError: The service refused to give a credential.
            StaleHandleError: The transport is closed; no attempt will ever succeed.
        """
        self._check_open()
        credential = await self.credentials.current()
        answer = await self._send(request, headers, credential)
        if status.is_invalid_token(answer.status_code, answer.headers):
            other = await self.credentials.replacement(credential)
            if other is not None:
                answer = await self._send(request, headers, other)
        self._note(answer)
        return Response(answer.status_code, dict(answer.headers), answer.content)

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        """Get what is at any address, piece by piece; only this service is told who asks.

        Raises:
            APIConnectionError: There was no answer, or it broke off.
            ConfigurationError: That is no HTTP address.
            StaleHandleError: The transport is closed.
        """
        self._check_open()
        private: dict[str, str] = {}
        if _origin_of(url) == self._origin:
            private = {**self._private, _KEY_HEADER: (await self.credentials.current()).reveal()}
        with self._pools[Traffic.REST_SUPPORT_REDIRECT].lend() as client, _no_httpx(url):
            async with client.client.stream(
                "GET",
                url,
                headers={**_ENVIRONMENT, **private, **_lower(headers)},
                timeout=httpx.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
            ) as answer:
                yield Stream(answer.status_code, dict(answer.headers), answer.aiter_raw())

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        self._closed = True
        await self.credentials.aclose()
        for pool in self._pools.values():
            await pool.aclose()

    async def _send(
        self, request: Request, headers: Mapping[str, str], credential: Secret
    ) -> httpx.Response:
        endpoint = request.endpoint
        own_timeout_s = None if endpoint.timeout_s == DEFAULT_TIMEOUT_S else endpoint.timeout_s
        timeout_s = request.timeout_s or own_timeout_s or self._timeout_s
        pool = self._pools[endpoint.traffic]
        url = f"{self._base_url}{request.path}"
        with pool.lend() as client, _no_httpx(url, timeout_s):
            answer = await client.client.request(
                endpoint.method,
                url,
                content=request.content,
                params={**self._query, **request.query} or None,
                headers=self._headers(request, headers, credential, timeout_s),
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
                follow_redirects=not endpoint.redirect_is_answer,
            )
            rejected = pool.is_rejection(client, answer)
        if rejected:
            await pool.close_retired()
            message = f"a proxy rejected {request.path} with an empty 400"
            raise APIConnectionError(message)
        return answer

    def _new_client(self) -> httpx.AsyncClient:
        client = self._make_client()
        client.event_hooks["request"].append(self._keep_secrets_home)
        return client

    async def _keep_secrets_home(self, request: httpx.Request) -> None:
        """Take the secrets out of a request that a redirect sends to somebody else.

        Raises:
            ConfigurationError: It would take content there: a prompt, say.
        """
        target = _origin_of(str(request.url))
        if target == self._origin:
            return
        if request.method != "GET":
            elsewhere = f"{target[0]}://{target[1]}"
            message = (
                f"{self._base_url} redirects to {elsewhere}: use that as base_url if it is right"
            )
            raise ConfigurationError(message)
        for name in (*_SECRET_HEADERS, *self._private):
            request.headers.pop(name, None)

    def _check_open(self) -> None:
        if self._closed:
            message = "the client was closed: make a new ServiceClient"
            raise StaleHandleError(message)

    def _note(self, answer: httpx.Response) -> None:
        """Tell of what the service says is going to change, each thing once."""
        note = status.deprecation(answer.headers)
        if note is not None and note.text not in self._notes:
            self._notes.add(note.text)
            level = logging.ERROR if note.is_error else logging.WARNING
            logger.log(level, "the service says: %s", note.text)

    def _headers(
        self, request: Request, headers: Mapping[str, str], credential: Secret, timeout_s: float
    ) -> dict[str, str]:
        fixed = {
            **_ENVIRONMENT,
            "accept": request.accept,
            "x-stainless-read-timeout": f"{timeout_s:g}",
        }
        if request.endpoint.method != "GET":
            fixed["content-type"] = request.content_type
        own = _lower({**headers, **request.headers})
        return {**fixed, **self._private, **own, _KEY_HEADER: credential.reveal()}


def _private_headers(
    given: Mapping[str, str], cloudflare: tuple[str, Secret] | None
) -> dict[str, str]:
    """Put together what is for the service alone: all of it may be secret."""
    private: dict[str, str] = {}
    if cloudflare is not None:
        check_header(cloudflare[1], "the secret of Cloudflare Access")
        private["cf-access-client-id"] = cloudflare[0]
        private["cf-access-client-secret"] = cloudflare[1].reveal()
    for name, value in given.items():
        check_header(Secret(value), f"the default header {name!r}")
        private[name.lower()] = value
    return private


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Make names comparable: they mean the same in any case."""
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def _no_httpx(target: str, timeout_s: float | None = None) -> Iterator[None]:
    """Turn httpx's exceptions into ours.

    Raises:
        APIConnectionError: There was no answer.
        APITimeoutError: There was none in time.
        ConfigurationError: The target cannot be an address.
    """
    # A query may hold a signature: whoever has it has what it points to.
    target = target.partition("?")[0]
    try:
        yield
    except httpx.TimeoutException as error:
        within = "" if timeout_s is None else f" within {timeout_s:g} s"
        message = f"no answer from {target}{within} ({type(error).__name__})"
        raise APITimeoutError(message) from None
    except httpx.InvalidURL as error:
        message = f"{target!r} cannot be a path: {error}"
        raise ConfigurationError(message) from None
    except httpx.HTTPError as error:
        message = f"no answer from {target}: {type(error).__name__}: {error}"
        raise APIConnectionError(message) from None


def _origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address.

    Raises:
        ConfigurationError: It is no HTTP address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        message = f"base_url={url!r} is no address: {error}"
        raise ConfigurationError(message) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        message = f"base_url={url!r} must look like https://host/path"
        raise ConfigurationError(message)
    return parsed.scheme, parsed.host, parsed.port


def _default_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        follow_redirects=True,
        timeout=DEFAULT_TIMEOUT_S,
        limits=httpx.Limits(
            max_connections=1000, max_keepalive_connections=_KEEP_ALIVE_CONNECTIONS
        ),
    )

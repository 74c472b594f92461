"""HTTP through httpx: pools of clients per traffic class, the headers that every request carries.

The only module that imports httpx, and one of two that see a secret (with
:mod:`tinker_ray.config`). Pools are lists of clients with a fixed width each: httpx's own pool
slows down quadratically with the number of requests in flight.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import httpx

from tinker_ray.errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    StaleHandleError,
)
from tinker_ray.transport.message import Response
from tinker_ray.version import __version__
from tinker_ray.wire.endpoint import CLIENT_WIDTH, CONNECT_TIMEOUT_S, DEFAULT_TIMEOUT_S, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tinker_ray.config import Secret, Settings
    from tinker_ray.transport.message import Request

_KEEP_ALIVE_CONNECTIONS = 20
_SECRET_HEADERS = ("X-API-Key", "CF-Access-Client-Id", "CF-Access-Client-Secret")


class _Client:
    """An HTTP client and the number of requests that it carries at this moment."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.in_flight = 0


class HttpTransport:
    """Sends requests to one service with one key.

    Args:
        base_url: The service, path prefix included; a prefix is kept.
        api_key: Sent as ``X-API-Key``, to this service only: a redirect elsewhere goes without it.
        cloudflare: Client id and secret of Cloudflare Access.
        make_client: Builds an ``httpx.AsyncClient``; tests pass one over an ASGI app.

    Raises:
        ConfigurationError: ``base_url`` is no HTTP address, or a secret cannot be in a header.
    """

    def __init__(
        self,
        base_url: str,
        api_key: Secret,
        *,
        cloudflare: tuple[str, Secret] | None = None,
        make_client: Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._origin = _origin_of(base_url)
        self._api_key = api_key
        self._cloudflare = cloudflare
        self._make_client = make_client or _default_client
        self._pools: dict[Traffic, list[_Client]] = {traffic: [] for traffic in Traffic}
        self._closed = False
        _check_header(api_key, "the API key")
        if cloudflare is not None:
            _check_header(cloudflare[1], "the secret of Cloudflare Access")

    @classmethod
    def from_settings(cls, settings: Settings) -> HttpTransport:
        """Connect to the service that the settings name.

        Raises:
            ConfigurationError: There is no API key, or it or the address cannot work.
        """
        return cls(settings.base_url, settings.required_key(), cloudflare=settings.cloudflare)

    def __repr__(self) -> str:
        """Show the service and what is in flight, never the key."""
        load = {
            str(traffic): [client.in_flight for client in pool]
            for traffic, pool in self._pools.items()
            if pool
        }
        return f"HttpTransport({self._base_url!r}, in_flight={load})"

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send a request once and return the answer, whatever its status.

        Raises:
            APIConnectionError: There was no answer.
            APITimeoutError: There was none in time.
            ConfigurationError: The path cannot be sent.
            StaleHandleError: The transport is closed; no attempt will ever succeed.
        """
        self._check_open()
        timeout_s = request.timeout_s or request.endpoint.timeout_s
        client = self._take(request.endpoint.traffic)
        try:
            answer = await client.client.request(
                request.endpoint.method,
                f"{self._base_url}{request.path}",
                content=request.content,
                params=dict(request.query) or None,
                headers=self._headers(request, headers, timeout_s),
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            )
        except httpx.TimeoutException as error:
            message = (
                f"no answer from {request.path} within {timeout_s:g} s ({type(error).__name__})"
            )
            raise APITimeoutError(message) from None
        except httpx.InvalidURL as error:
            message = f"{request.path!r} cannot be a path: {error}"
            raise ConfigurationError(message) from None
        except httpx.HTTPError as error:
            message = (
                f"no answer from {self._base_url}{request.path}: {type(error).__name__}: {error}"
            )
            raise APIConnectionError(message) from None
        finally:
            client.in_flight -= 1
        return Response(answer.status_code, dict(answer.headers), answer.content)

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        self._closed = True
        pools = [client for pool in self._pools.values() for client in pool]
        self._pools = {traffic: [] for traffic in Traffic}
        for client in pools:
            await client.client.aclose()

    def _take(self, traffic: Traffic) -> _Client:
        pool = self._pools[traffic]
        for client in pool:
            if client.in_flight < CLIENT_WIDTH[traffic]:
                break
        else:
            client = _Client(self._make_client())
            client.client.event_hooks["request"].append(self._keep_secrets_home)
            pool.append(client)
        client.in_flight += 1
        return client

    async def _keep_secrets_home(self, request: httpx.Request) -> None:
        """Take the secrets out of a request that a redirect sends to somebody else."""
        if _origin_of(str(request.url)) != self._origin:
            for name in _SECRET_HEADERS:
                request.headers.pop(name, None)

    def _check_open(self) -> None:
        if self._closed:
            message = "the client was closed: make a new ServiceClient"
            raise StaleHandleError(message)

    def _headers(
        self, request: Request, headers: Mapping[str, str], timeout_s: float
    ) -> dict[str, str]:
        fixed = {
            "X-API-Key": self._api_key.reveal(),
            "User-Agent": f"tinker-ray/Python {__version__}",
            "Accept": request.accept,
            "x-stainless-read-timeout": f"{timeout_s:g}",
            "X-Stainless-Runtime": platform.python_implementation(),
            "X-Stainless-Runtime-Version": platform.python_version(),
        }
        if request.endpoint.method != "GET":
            fixed["Content-Type"] = request.content_type
        if self._cloudflare is not None:
            fixed["CF-Access-Client-Id"] = self._cloudflare[0]
            fixed["CF-Access-Client-Secret"] = self._cloudflare[1].reveal()
        return {**fixed, **headers, **request.headers}


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


def _check_header(secret: Secret, name: str) -> None:
    text = secret.reveal()
    if not (text.isascii() and text.isprintable() and text == text.strip()):
        message = f"{name} has white space around it or characters that no header may have"
        raise ConfigurationError(message)


def _default_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        follow_redirects=True,
        timeout=DEFAULT_TIMEOUT_S,
        limits=httpx.Limits(
            max_connections=1000, max_keepalive_connections=_KEEP_ALIVE_CONNECTIONS
        ),
    )

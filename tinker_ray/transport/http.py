"""The service over HTTP: its address, the headers that every request carries, redirects, tokens.

Knows nothing of connections: a :class:`~tinker_ray.transport.channel.Channel` has those.
Invariant: secrets go to the service's own origin and nowhere else.
"""

from __future__ import annotations

import logging
import platform
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from tinker_ray.config import Secret
from tinker_ray.errors import APIConnectionError, ConfigurationError, StaleHandleError
from tinker_ray.transport.auth import ApiKey, check_header, resolve
from tinker_ray.transport.channel import Exchange
from tinker_ray.version import SDK_VERSION, __version__
from tinker_ray.wire import status
from tinker_ray.wire.endpoint import DEFAULT_TIMEOUT_S, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.channel import Channel
    from tinker_ray.transport.message import Request, Response, Stream

logger = logging.getLogger(__name__)

REJECTIONS = 16
"""Empty 400s of a proxy that a traffic class takes for lost connections. Each success gives one
back; when none is left, such an answer is believed."""
MOST_REDIRECTS = 20
_KEY_HEADER = "x-api-key"
_SECRET_HEADERS = (_KEY_HEADER, "x-tinker-weights-access-token")
_PORTS = {"http": 80, "https": 443}
_ENVIRONMENT = {
    "user-agent": f"tinker-ray/Python {__version__}",
    "x-stainless-lang": "python",
    "x-stainless-package-version": SDK_VERSION,
    "x-stainless-os": platform.system(),
    "x-stainless-arch": platform.machine(),
    "x-stainless-runtime": platform.python_implementation(),
    "x-stainless-runtime-version": platform.python_version(),
    "x-stainless-async": "async:asyncio",
}


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
        make_client: Builds an ``httpx.AsyncClient`` to send with; tests pass one over an ASGI app.
        channel: What to send with; by default aiohttp.

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
        channel: Channel | None = None,
    ) -> None:
        self.credentials = ApiKey(credentials) if isinstance(credentials, Secret) else credentials
        self._base_url = base_url.rstrip("/")
        self._origin = _origin_of(base_url)
        self._private = _private_headers(default_headers or {}, cloudflare)
        self._query = dict(default_query or {})
        self._timeout_s = timeout_s or DEFAULT_TIMEOUT_S
        self._channel = channel or _channel(make_client)
        self._rejections_left = dict.fromkeys(Traffic, REJECTIONS)
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
        return f"HttpTransport({self._base_url!r}, in_flight={dict(self._channel.load)})"

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
        if status.is_invalid_token(answer.status, answer.headers):
            other = await self.credentials.replacement(credential)
            if other is not None:
                answer = await self._send(request, headers, other)
        self._note(answer)
        return answer

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
        exchange = Exchange(
            "GET",
            url,
            {**_ENVIRONMENT, **private, **_lower(headers)},
            timeout_s=self._timeout_s,
            traffic=Traffic.REST_SUPPORT_REDIRECT,
        )
        async with self._channel.stream(exchange) as stream:
            yield stream

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        self._closed = True
        await self.credentials.aclose()
        await self._channel.aclose()

    async def _send(
        self, request: Request, headers: Mapping[str, str], credential: Secret
    ) -> Response:
        endpoint = request.endpoint
        own_timeout_s = None if endpoint.timeout_s == DEFAULT_TIMEOUT_S else endpoint.timeout_s
        timeout_s = request.timeout_s or own_timeout_s or self._timeout_s
        exchange = Exchange(
            endpoint.method,
            f"{self._base_url}{request.path}",
            self._headers(request, headers, credential, timeout_s),
            request.content,
            {**self._query, **request.query} if self._query else request.query,
            timeout_s,
            endpoint.traffic,
        )
        answer = await self._channel.send(exchange)
        if status.is_redirect(answer.status) and not endpoint.redirect_is_answer:
            answer = await self._follow(exchange, answer)
        if self._is_rejection(endpoint.traffic, answer):
            message = f"a proxy rejected {request.path} with an empty 400"
            raise APIConnectionError(message)
        return answer

    async def _follow(self, exchange: Exchange, answer: Response) -> Response:
        """Go where an answer points to; secrets stay behind when that is somebody else.

        Raises:
            APIConnectionError: There was no answer, or no end.
        """
        for _ in range(MOST_REDIRECTS):
            target = answer.headers.get("location")
            if target is None or not status.is_redirect(answer.status):
                return answer
            url = urljoin(exchange.url, target)
            headers = dict(exchange.headers)
            keeps = status.keeps_method(answer.status) or exchange.method == "GET"
            if _origin_of(url) != self._origin:
                self._refuse_content_elsewhere(url, keeps=keeps and exchange.method != "GET")
                for name in (*_SECRET_HEADERS, *self._private):
                    headers.pop(name, None)
            exchange = Exchange(
                exchange.method if keeps else "GET",
                url,
                headers,
                exchange.content if keeps else b"",
                timeout_s=exchange.timeout_s,
                traffic=exchange.traffic,
            )
            answer = await self._channel.send(exchange)
        raise APIConnectionError(f"no end of redirects from {exchange.url.partition('?')[0]}")

    def _refuse_content_elsewhere(self, url: str, *, keeps: bool) -> None:
        """Let nobody else have the content of a request: a prompt, say.

        Raises:
            ConfigurationError: It would be sent.
        """
        if keeps:
            scheme, host, _ = _origin_of(url)
            message = f"{self._base_url} redirects to {scheme}://{host}: use that as base_url"
            raise ConfigurationError(message)

    def _is_rejection(self, traffic: Traffic, answer: Response) -> bool:
        """Tell whether an answer is a proxy's and to be taken for a lost connection."""
        left = self._rejections_left[traffic]
        if not status.is_proxy_rejection(answer.status, answer.headers):
            if left < REJECTIONS and status.is_success(answer.status):
                self._rejections_left[traffic] = left + 1
            return False
        self._rejections_left[traffic] = max(left - 1, 0)
        return left > 0

    def _check_open(self) -> None:
        if self._closed:
            message = "the client was closed: make a new ServiceClient"
            raise StaleHandleError(message)

    def _note(self, answer: Response) -> None:
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


def _channel(make_client: Callable[[], httpx.AsyncClient] | None) -> Channel:
    if make_client is not None:
        from tinker_ray.transport.httpx_channel import HttpxChannel

        return HttpxChannel(make_client)
    from tinker_ray.transport.aiohttp_channel import AiohttpChannel

    return AiohttpChannel()


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


def _origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address.

    Raises:
        ConfigurationError: It is no HTTP address.
    """
    try:
        parsed = urlsplit(url)
        port = parsed.port
    except ValueError as error:
        message = f"base_url={url!r} is no address: {error}"
        raise ConfigurationError(message) from None
    if parsed.scheme not in _PORTS or not parsed.hostname:
        message = f"base_url={url!r} must look like https://host/path"
        raise ConfigurationError(message)
    return parsed.scheme, parsed.hostname, port or _PORTS[parsed.scheme]

"""Both channels against a server on the loopback interface: they do the same, and nothing more."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tinker_ray.config import Secret
from tinker_ray.errors import APIConnectionError, APITimeoutError, ConfigurationError
from tinker_ray.transport.aiohttp_channel import AiohttpChannel
from tinker_ray.transport.channel import Channel, Exchange
from tinker_ray.transport.http import HttpTransport
from tinker_ray.transport.httpx_channel import HttpxChannel
from tinker_ray.transport.message import Request
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.transport.message import Response

CHANNELS: dict[str, Callable[[], Channel]] = {"aiohttp": AiohttpChannel, "httpx": HttpxChannel}


class Handler(BaseHTTPRequestHandler):
    """Does what the path says."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), content))
        self.server.connections.add(self.client_address)
        self.server.on_request()
        path = self.path.partition("?")[0]
        if path == "/never":
            self.server.released.wait(20)
            self.close_connection = True
        elif path == "/broken":
            self._send(200, b"half", length=100)
            self.close_connection = True
        elif path == "/empty-400":
            self._send(400, b"")
        elif path == "/elsewhere":
            self._send(307, b"", {"Location": "/echo"})
        else:
            self._send(200, content or b"hello", {"X-Mixed-Case": "Kept"})

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Remembers what it was asked, and over which connections."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections: set[object] = set()
        self.on_request: Callable[[], object] = bool
        self.released = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(params=CHANNELS)
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    made = CHANNELS[request.param]()
    yield made
    await made.aclose()


async def post(channel: Channel, url: str, timeout_s: float = 20.0) -> Response:
    headers = {"content-type": "text/plain", "x-own": "1"}
    return await channel.send(Exchange("POST", url, headers, b"x", timeout_s=timeout_s))


def under_way(channel: Channel) -> int:
    return sum(count for counts in channel.load.values() for count in counts)


async def test_what_is_sent_arrives_and_what_is_answered_returns(
    server: Server, channel: Channel
) -> None:
    exchange = Exchange("POST", f"{server.url}/echo", {"x-own": "1"}, b"body", {"a": 1, "b": "c"})
    answer = await channel.send(exchange)
    assert (200, b"body", "Kept") == (
        answer.status,
        answer.content,
        answer.headers["x-mixed-case"],
    )
    ((method, path, headers, content),) = server.seen
    assert ("POST", "/echo?a=1&b=c", b"body") == (method, path, content)
    assert "1" == {name.lower(): value for name, value in headers.items()}["x-own"]


async def test_no_cookie_and_no_redirect_is_followed(server: Server, channel: Channel) -> None:
    answer = await post(channel, f"{server.url}/elsewhere")
    assert (307, "/echo") == (answer.status, answer.headers["location"])
    assert 1 == len(server.seen)


async def test_connections_are_used_again_but_for_a_proxys(
    server: Server, channel: Channel
) -> None:
    for _ in range(3):
        await post(channel, f"{server.url}/echo")
    assert 1 == len(server.connections)
    assert 400 == (await post(channel, f"{server.url}/empty-400")).status
    await post(channel, f"{server.url}/echo")
    assert 2 == len(server.connections)


async def test_many_requests_at_once_do_not_wait_for_each_other(
    server: Server, channel: Channel
) -> None:
    answers = await asyncio.gather(*(post(channel, f"{server.url}/echo") for _ in range(20)))
    assert [200] * 20 == [answer.status for answer in answers]
    assert 0 == under_way(channel)


async def test_silence_is_a_timeout(server: Server, channel: Channel) -> None:
    with pytest.raises(APITimeoutError, match=r"/never within 0\.2 s"):
        await post(channel, f"{server.url}/never", timeout_s=0.2)


async def test_nobody_there_is_a_connection_error(channel: Channel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(APIConnectionError, match=f"no answer from http://127.0.0.1:{port}/x"):
        await post(channel, f"http://127.0.0.1:{port}/x?signature=secret")


async def test_an_answer_that_breaks_off_is_a_connection_error(
    server: Server, channel: Channel
) -> None:
    with pytest.raises(APIConnectionError) as caught:
        await post(channel, f"{server.url}/broken?signature=secret")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_answer_comes_piece_by_piece(server: Server, channel: Channel) -> None:
    content = bytes(range(256)) * 2000
    exchange = Exchange("POST", f"{server.url}/echo", {}, content)
    answer = await channel.send(exchange)
    assert content == answer.content
    async with channel.stream(Exchange("GET", f"{server.url}/hello", {})) as stream:
        pieces = [piece async for piece in stream.chunks]
    assert (200, b"hello") == (stream.status, b"".join(pieces))
    assert "Kept" == stream.headers["x-mixed-case"]


async def test_a_stream_that_breaks_off_is_a_connection_error(
    server: Server, channel: Channel
) -> None:
    with pytest.raises(APIConnectionError):
        async with channel.stream(Exchange("GET", f"{server.url}/broken", {})) as stream:
            [piece async for piece in stream.chunks]


async def test_what_is_no_address_is_refused(channel: Channel) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        await post(channel, "http://host:port/x")


async def test_a_cancelled_request_frees_its_place(server: Server, channel: Channel) -> None:
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    server.on_request = lambda: loop.call_soon_threadsafe(arrived.set)
    task = asyncio.create_task(post(channel, f"{server.url}/never"))
    await arrived.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 0 == under_way(channel)


async def test_a_transport_follows_redirects_of_its_own_service(server: Server) -> None:
    transport = HttpTransport(server.url, Secret("tml-key"))
    answer = await transport.attempt(Request(endpoint.OPTIM_STEP, "/elsewhere", b"{}"), {})
    await transport.aclose()
    assert (200, b"{}") == (answer.status, answer.content)
    assert [("POST", "/elsewhere"), ("POST", "/echo")] == [item[:2] for item in server.seen]


async def test_a_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    channel = AiohttpChannel()
    answer = await post(channel, "http://service.invalid/echo")
    await channel.aclose()
    assert 200 == answer.status
    assert "http://service.invalid/echo" == server.seen[0][1]

"""A service in front of another one, which remembers what was asked."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_OF_ONE_HOP = {"host", "connection", "content-length", "transfer-encoding"}


class RecordingProxy:
    """Passes requests on to a service, from enter to exit.

    Attributes:
        paths: What was asked for, in order.
        keys: The credentials that were sent.
    """

    def __init__(self, url: str) -> None:
        self.paths: list[str] = []
        self.keys: set[str] = set()
        self._changed = threading.Condition()
        self._server = _Server(self, urlsplit(url).netloc)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def record(self, path: str, key: str) -> None:
        """Remember a request."""
        with self._changed:
            self.paths.append(path)
            self.keys.add(key)
            self._changed.notify_all()

    def count(self, name: str) -> int:
        """Count the requests to an endpoint."""
        return sum(path.endswith(f"/{name}") for path in list(self.paths))

    def wait_for(self, name: str, count: int, timeout_s: float = 30.0) -> bool:
        """Wait until an endpoint has been asked so often; say whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count(name) >= count, timeout_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, proxy: RecordingProxy, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.target = target

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that left."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.0"  # a connection per request, so that no thread stays
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.server.proxy.record(path, self.headers.get("X-API-Key") or "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP
        }
        connection = http.client.HTTPConnection(self.server.target, timeout=120)
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

"""An OpenTelemetry collector on the loopback interface that keeps what it is sent.

Speaks OTLP over HTTP with protobuf bodies, traces only. Does not know who sends: point
``OTEL_EXPORTER_OTLP_ENDPOINT`` of any process at :attr:`Collector.endpoint`.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it arrived; ids in hexadecimal, ``parent_id`` empty for a root."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span id of each."""

    @property
    def component(self) -> str:
        """What kind of process sent it."""
        return str(self.resource.get("tinker_ray.component", ""))


class Collector:
    """The server, from enter to exit.

    Example::

        with Collector() as collector:
            run_with(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
            assert collector.wait_for(["sample"])
    """

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._spans: list[CollectedSpan] = []
        self._bodies: list[bytes] = []
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="collector", daemon=True
        )

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

    @property
    def endpoint(self) -> str:
        """The value for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[CollectedSpan]:
        """Everything so far, in order of arrival."""
        with self._arrived:
            return list(self._spans)

    @property
    def bodies(self) -> list[bytes]:
        """The raw bodies, to look for what must not be in them."""
        with self._arrived:
            return list(self._bodies)

    def named(self, name: str) -> list[CollectedSpan]:
        """The spans of one name."""
        return [span for span in self.spans if span.name == name]

    def wait_for(self, names: Iterable[str], timeout_s: float = 15.0) -> bool:
        """Wait until a span of every name has arrived; False if the time is up before."""
        wanted = set(names)
        with self._arrived:
            return self._arrived.wait_for(
                lambda: wanted <= {span.name for span in self._spans}, timeout_s
            )

    def receive(self, body: bytes) -> None:
        """Take in one export request."""
        spans = list(_spans(ExportTraceServiceRequest.FromString(body)))
        with self._arrived:
            self._bodies.append(body)
            self._spans += spans
            self._arrived.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.collector = collector


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        if self.path == "/v1/traces":
            self.server.collector.receive(body)
        self.send_response(200 if self.path == "/v1/traces" else 404)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def _spans(request: ExportTraceServiceRequest) -> Iterable[CollectedSpan]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield CollectedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                    resource=resource,
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:  # noqa: ANN401
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)

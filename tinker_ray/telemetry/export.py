"""Export of spans, as the standard ``OTEL_*`` variables of the process say.

The only module that imports the OpenTelemetry SDK, and that only once there is something to export.
The provider belongs to this package: the application's global one, and Ray's, are left alone. Ids
come from ``os.urandom``, because user code that seeds ``random`` alike in many processes would make
the SDK's own ids collide.

Spans wait up to ``OTEL_BSP_SCHEDULE_DELAY`` ms in memory. A process that ends by itself exports the
rest; one that will be killed has to call :func:`flush` first.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING

from tinker_ray import config
from tinker_ray.telemetry import names, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

_logger = logging.getLogger(__name__)
_lock = threading.RLock()

FLUSH_TIMEOUT_S = 5.0
"""How long a process waits at its end for a collector that does not answer."""


class _Provider:
    """The provider of this process, while it exports."""

    current: TracerProvider | None = None


def start_export(component: str) -> bool:
    """Export this process's spans from now on, if its environment names an exporter.

    ``OTEL_TRACES_EXPORTER`` lists ``otlp`` (HTTP and protobuf), ``console`` (standard error) or
    ``none``; without it, an OTLP endpoint is enough. Everything else (endpoint, headers, sampler,
    batch sizes, resource) is read by the SDK. Calling it again changes nothing.

    Args:
        component: What the process is, as the attribute ``tinker_ray.component``; its service
            name too, unless the environment gives one.

    Returns:
        Whether spans are exported.
    """
    settings = config.ExportSettings.from_env()
    if not settings.exporters:
        return False
    with _lock:
        if _Provider.current is not None:
            return True
        processors = [made for name in settings.exporters if (made := _processor(name, settings))]
        if processors:
            install(component, *processors)
        return bool(processors)


def install(component: str, *processors: SpanProcessor) -> None:
    """Send this process's spans to span processors of one's own, whatever the environment says.

    An export that is under way is stopped first.

    Args:
        component: As in :func:`start_export`.
        *processors: OpenTelemetry span processors; they are shut down by :func:`stop`.
    """
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(
        resource=_resource(component), shutdown_on_exit=False, id_generator=_id_generator()
    )
    for processor in processors:
        provider.add_span_processor(processor)
    with _lock:
        stop()
        _Provider.current = provider
        trace.install(provider)
        atexit.register(stop)


def flush(timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
    """Export every span that has ended, and wait for it.

    Blocks: call it from a thread, not on an event loop.

    Returns:
        Whether all were sent in time; True if nothing is exported.
    """
    provider = _Provider.current
    return provider is None or _within(timeout_s, provider.force_flush)


def stop(timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
    """Export what is left and end the export; spans after that go nowhere. Idempotent.

    Returns:
        Whether all were sent in time.
    """
    with _lock:
        provider, _Provider.current = _Provider.current, None
        if provider is None:
            return True
        trace.install(None)
        atexit.unregister(stop)
        return _within(timeout_s, provider.shutdown)


def _within(timeout_s: float, step: Callable[[], object]) -> bool:
    """Run a step that the SDK does not bound in time; True if it ended in time."""
    thread = threading.Thread(target=step, name="telemetry-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending and starts no more threads
        step()
        return True
    thread.join(timeout_s)
    return not thread.is_alive()


def _processor(name: str, settings: config.ExportSettings) -> SpanProcessor | None:
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SimpleSpanProcessor,
    )

    if name == "console":
        return SimpleSpanProcessor(_console_exporter())
    if name not in {"otlp", "otlp_proto_http"}:
        _logger.warning("OTEL_TRACES_EXPORTER=%s is unknown here: use otlp, console or none", name)
        return None
    if settings.protocol != config.OTLP_HTTP:
        _logger.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL=%s is not supported: spans are not exported; use %s",
            settings.protocol,
            config.OTLP_HTTP,
        )
        return None
    return BatchSpanProcessor(_otlp_exporter())


def _console_exporter() -> SpanExporter:
    import sys

    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=sys.stderr)


def _otlp_exporter() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


def _resource(component: str) -> Resource:
    from opentelemetry.sdk.resources import (
        PROCESS_PID,
        SERVICE_NAME,
        Resource,
    )

    resource = Resource.create({names.COMPONENT: component, PROCESS_PID: os.getpid()})
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: component}))
    return resource


def _id_generator() -> IdGenerator:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class SystemRandomIds(IdGenerator):
        def generate_span_id(self) -> int:
            return int.from_bytes(os.urandom(8)) or 1

        def generate_trace_id(self) -> int:
            return int.from_bytes(os.urandom(16)) or 1

        def is_trace_id_random(self) -> bool:
            return True

    return SystemRandomIds()

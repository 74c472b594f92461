"""Spans: the one way in which the project opens them.

Uses the OpenTelemetry API only. Spans go to the provider that :mod:`tinker_ray.telemetry.export`
made for this package, else to the application's global provider if it has one, else nowhere, at
about the cost of a function call. An exception leaves its class in the span, never its message:
messages quote requests.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode

from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import context_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

__all__ = ["Span", "SpanKind", "SpanScope", "current_trace_id", "record", "recording", "span"]

_SCOPE = "tinker_ray"
_application_tracer: Tracer = trace.get_tracer(_SCOPE)


_LOOK_AGAIN_S = 0.1
"""How often to look for a provider of the application's: looking reads the environment."""


class _Own:
    """The tracer of this package's own provider, while it exports, and when there was none."""

    tracer: Tracer | None = None
    none_until: float = 0.0


def _active_tracer() -> Tracer | None:
    if _Own.tracer is not None:
        return _Own.tracer
    now = time.monotonic()
    if now < _Own.none_until:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _Own.none_until = now + _LOOK_AGAIN_S
        return None
    return _application_tracer


def install(provider: trace.TracerProvider | None) -> None:
    """Send the spans of this package to a provider; None ends that."""
    _Own.tracer = None if provider is None else provider.get_tracer(_SCOPE)


def recording() -> bool:
    """Whether spans go anywhere, for callers whose attributes cost something to work out."""
    return _active_tracer() is not None


def current_trace_id() -> str | None:
    """Return the 32 hexadecimal digits of the current trace; None outside of one."""
    current = trace.get_current_span().get_span_context()
    return trace.format_trace_id(current.trace_id) if current.is_valid else None


class _Plan(NamedTuple):
    name: str
    attributes: Mapping[str, AttributeValue] | None
    kind: SpanKind
    links: Sequence[Mapping[str, str]]

    def start(self, tracer: Tracer, parent: Context | None, start_ns: int | None = None) -> Span:
        linked = (trace.get_current_span(context_from(carrier)) for carrier in self.links)
        links = [Link(other.get_span_context()) for other in linked]
        return tracer.start_span(
            self.name, parent, self.kind, self.attributes, links, start_time=start_ns
        )


class SpanScope:
    """A span that is current between enter and exit; made by :func:`span`, good for one use.

    Enter and exit have to happen in the same task or thread.
    """

    __slots__ = ("_carrier", "_plan", "_span", "_token")

    def __init__(self, plan: _Plan, carrier: Mapping[str, str] | None) -> None:
        self._plan = plan
        self._carrier = carrier
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        """Start the span and make it current.

        While nothing is recorded, the carrier's span becomes current all the same, so that the
        trace goes on through a process that exports nothing.
        """
        tracer = _active_tracer()
        parent = context_from(self._carrier) if self._carrier else None
        if tracer is not None:
            self._span = self._plan.start(tracer, parent)
            self._token = otel_context.attach(trace.set_span_in_context(self._span, parent))
        elif parent is not None:
            self._token = otel_context.attach(parent)
        return self._span

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the span, marked with the class of the exception if there is one."""
        if exception is not None and self._span.is_recording():
            mark_failed(self._span, exception)
        self._span.end()
        if self._token is not None:
            otel_context.detach(self._token)


def span(
    name: str,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    carrier: Mapping[str, str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Mapping[str, str]] = (),
) -> SpanScope:
    """Open a span around a ``with`` block, in sync or async code.

    Args:
        name: One of :mod:`tinker_ray.telemetry.names`.
        attributes: Keys from there; never a key of the service, a header or a prompt.
        carrier: The parent, if it is in another process; by default the current span. An empty one
            counts as none.
        kind: CLIENT around what another process serves, SERVER in that one.
        links: Carriers of spans that this one builds on without being their child.

    Returns:
        A context manager that gives the span; on it, ``set_attribute`` is always allowed.
    """
    return SpanScope(_Plan(name, attributes, kind, links), carrier)


def record(
    name: str,
    *,
    start_ns: int,
    end_ns: int,
    attributes: Mapping[str, AttributeValue] | None = None,
    carrier: Mapping[str, str] | None = None,
) -> None:
    """Record a span after the fact, for work that moves between threads or is done in batches.

    Args:
        name: As in :func:`span`, like the other arguments.
        start_ns: From ``time.time_ns()``.
        end_ns: Likewise.
        attributes: Keys and values.
        carrier: The parent; by default the current span.
    """
    tracer = _active_tracer()
    if tracer is None:
        return
    parent = context_from(carrier) if carrier else None
    _Plan(name, attributes, SpanKind.INTERNAL, ()).start(tracer, parent, start_ns).end(end_ns)


def mark_failed(target: Span, error: BaseException) -> None:
    """Put the class of an error on a span, with its status code and category if it has them.

    Cancellation and exit are no failures: the span only says that it was cut short.
    """
    if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit):
        target.set_attribute(names.CANCELLED, value=True)
        return
    kind = type(error)
    builtin = kind.__module__ == "builtins"
    name = kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"
    target.set_attribute(names.ERROR_TYPE, name)
    status_code = getattr(error, "status_code", None)
    if isinstance(status_code, int):
        target.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status_code)
    category = getattr(error, "category", None)
    if category in {"user", "server", "unknown"}:
        target.set_attribute(names.ERROR_CATEGORY, category)
    target.set_status(Status(StatusCode.ERROR, name))

"""Trace context as a plain dictionary, to be put into an actor call or among HTTP headers.

W3C Trace Context whatever ``OTEL_PROPAGATORS`` says, because both ends are ours; baggage stays
behind, since users may keep anything in it. Does not know where the dictionary travels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

Carrier: TypeAlias = dict[str, str]
"""``traceparent`` and ``tracestate``, lower case; empty outside a trace. Reads as HTTP headers."""

_W3C = TraceContextTextMapPropagator()


def inject(context: Context | None = None) -> Carrier:
    """Return the carrier of the current span, or of the one in a given context."""
    carrier: Carrier = {}
    _W3C.inject(carrier, context)
    return carrier


def context_from(carrier: Mapping[str, str]) -> Context:
    """Return a context whose current span is the carrier's, for use as a parent.

    A carrier that is empty or malformed gives a context without a span: a new trace starts there.
    """
    lowered = {name.lower(): value for name, value in carrier.items()}
    return _W3C.extract(lowered, context=trace.set_span_in_context(trace.INVALID_SPAN))

"""One trace through driver, actors, HTTP and engine, on the OpenTelemetry API.

Does not know Ray or HTTP: context travels as an explicit
:data:`~tinker_ray.telemetry.carrier.Carrier` that others put into a call or a header. Nothing here
replaces a global provider, and no span holds a key, a header or a prompt. Metrics that users' code
records in a worker of ours are told to the process that it works for. Only
:mod:`tinker_ray.telemetry.export` imports the OpenTelemetry SDK.
"""

from tinker_ray.telemetry.carrier import Carrier, context_from, inject
from tinker_ray.telemetry.trace import current_trace_id, recording, span

__all__ = ["Carrier", "context_from", "current_trace_id", "inject", "recording", "span"]

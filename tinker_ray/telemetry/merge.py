"""Measurements of other processes, put into this process's own OpenTelemetry instruments.

Knows the OpenTelemetry API alone: whatever provider the application has set takes them, as if they
had been made here. Invariant: what a provider of others makes of them never fails the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from opentelemetry import metrics

from tinker_ray.telemetry import names
from tinker_ray.telemetry.tally import Kind, Series, Source

logger = logging.getLogger(__name__)

Write: TypeAlias = Callable[[float, dict[str, Any]], None]


class Merger:
    """Takes the measurements of one worker.

    Sums of several workers add up, values of histograms come together. Each worker keeps gauges of
    its own, by the attribute ``tinker_ray.worker``: of two workers' values neither is the last one.

    Args:
        worker: Its name.
        provider: Gets them; None for the process's own.
    """

    def __init__(self, worker: str, provider: metrics.MeterProvider | None = None) -> None:
        self._worker = worker
        self._provider = provider
        self._writers: dict[Source, Write] = {}
        self._has_warned = False

    def merge(self, measured: Iterable[Series]) -> None:
        """Take measurements in."""
        try:
            for series in measured:
                self._merge(series)
        except Exception:  # a border: the provider is the application's
            if not self._has_warned:
                self._has_warned = True
                logger.warning("measurements of %s are lost", self._worker, exc_info=True)

    def _merge(self, series: Series) -> None:
        source, attributes = series.source, dict(series.attributes)
        write = self._writers.get(source)
        if write is None:
            write = self._writers[source] = self._writer(source)
        if source.kind is Kind.GAUGE:
            attributes[names.WORKER] = self._worker
        if series.values is None:
            write(series.value, attributes)
            return
        for value, count in series.values.items():
            for _ in range(count):  # the API knows no other way
                write(value, attributes)

    def _writer(self, source: Source) -> Write:
        scope = source.scope
        provider = self._provider or metrics.get_meter_provider()
        meter = provider.get_meter(
            scope.name, scope.version, scope.schema_url, dict(scope.attributes)
        )
        described = (source.name, source.unit, source.description)
        match source.kind:
            case Kind.COUNTER:
                return meter.create_counter(*described).add
            case Kind.UP_DOWN_COUNTER:
                return meter.create_up_down_counter(*described).add
            case Kind.GAUGE:
                return meter.create_gauge(*described).set
            case Kind.HISTOGRAM:
                if source.boundaries is None:
                    return meter.create_histogram(*described).record
                return meter.create_histogram(
                    *described, explicit_bucket_boundaries_advisory=source.boundaries
                ).record

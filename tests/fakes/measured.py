"""A process whose OpenTelemetry metrics are looked at."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class Measured:
    """A meter provider, and what an exporter would get of it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def all_points(self) -> dict[str, list[Any]]:
        """Give the data points of each metric; sums are those since the beginning."""
        data = self._reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        scopes = [scope for resource in found for scope in resource.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in metrics}

    def points(self, name: str) -> list[Any]:
        """Give the data points of one metric."""
        return self.all_points().get(name, [])

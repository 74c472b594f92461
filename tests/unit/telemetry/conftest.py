"""Spans of the test kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tinker_ray.telemetry import export

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    """The exporter that receives every span of the test."""
    exporter = InMemorySpanExporter()
    export.install("test", SimpleSpanProcessor(exporter))
    yield exporter
    export.stop()

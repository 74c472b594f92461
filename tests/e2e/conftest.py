"""One embedded engine for all end-to-end tests, and clients on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics

from tests.fakes.measured import Measured
from tinker_ray import ServiceClient
from tinker_ray.config import Settings
from tinker_ray.engine import launcher
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def embedded_engine() -> Iterator[str]:
    """Hold the embedded engine for the session, so that no test waits for it to start again."""
    engine = launcher.embedded(NAME, Settings.from_env().home)
    yield engine.url
    engine.close()


@pytest.fixture
def service(embedded_engine: str) -> Iterator[ServiceClient]:
    """A client in local mode."""
    with ServiceClient(base_url="embedded") as client:
        yield client


@pytest.fixture(scope="session")
def measured() -> Measured:
    """This process's meter provider, of which there can be one only, until it ends."""
    measured = Measured()
    metrics.set_meter_provider(measured.provider)
    return measured

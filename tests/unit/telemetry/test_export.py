"""Export: what the environment decides, and that spans arrive at a collector."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fakes.collector import Collector
from tinker_ray.config import ExportSettings
from tinker_ray.telemetry import export, names, trace


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": " OTLP, console ,otlp"}, ("otlp", "console")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_SDK_DISABLED": "TRUE"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ()),
    ],
)
def test_the_environment_decides_on_export(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[str, ...]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert expected == ExportSettings.from_env().exporters


def test_nothing_is_started_without_an_exporter() -> None:
    assert not export.start_export("driver")
    assert not trace.recording()
    assert export.flush()
    assert export.stop()


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "carrier_pigeon"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_an_exporter_that_we_lack_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert not export.start_export("driver")
    assert list(variables.values())[-1] in caplog.text


def test_flushed_spans_are_at_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-job")
        assert export.start_export("driver")
        assert export.start_export("driver")
        try:
            with trace.span(names.TRAIN_STEP, attributes={names.STEP: 3}):
                pass
            assert export.flush()
            (span,) = collector.named(names.TRAIN_STEP)
        finally:
            export.stop()

    assert span.attributes[names.STEP] == 3
    assert (span.component, span.resource["service.name"]) == ("driver", "my-job")


def test_a_process_that_ends_sends_its_last_spans() -> None:
    code = (
        "from tinker_ray.telemetry import export, trace\n"
        "export.start_export('engine')\n"
        "with trace.span('engine.request'): pass\n"
    )
    with Collector() as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        (span,) = collector.spans

    assert (span.name, span.component) == (names.ENGINE_REQUEST, "engine")
    assert span.resource["service.name"] == "engine"


def test_a_collector_that_is_gone_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Collector() as collector:
        endpoint = collector.endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    export.start_export("driver")
    with trace.span(names.TRAIN_STEP):
        pass

    assert not export.stop(timeout_s=0.05)
    assert "Traceback" not in caplog.text

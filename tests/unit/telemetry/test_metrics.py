"""Measurements told to another process, against the OpenTelemetry SDK that gets them in the end."""

from __future__ import annotations

import enum
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider

from tests.fakes.measured import Measured
from tinker_ray.telemetry import tally
from tinker_ray.telemetry.merge import Merger
from tinker_ray.telemetry.told_meters import ToldMeters


class Driver(Measured):
    """A process with a provider of its own, and workers that tell it what they measure."""

    def take(self, meters: ToldMeters, worker: str = "worker-0") -> None:
        """Have a worker's measurements travel."""
        told = pickle.loads(pickle.dumps(meters.tally.take()))  # noqa: S301 - our own bytes
        Merger(worker, self.provider).merge(told)

    def numbers(self, name: str) -> dict[tuple[tuple[str, Any], ...], float]:
        """Give the values of a metric by their attributes."""
        return {tuple(sorted(point.attributes.items())): point.value for point in self.points(name)}


@pytest.fixture
def driver() -> Iterable[Driver]:
    driver = Driver()
    yield driver
    driver.provider.shutdown()


def silent() -> None:
    """Nobody waits for measurements."""


def measure_all_kinds(meter: Meter) -> None:
    counter = meter.create_counter("steps", "1", "Steps done")
    counter.add(2, {"env": "a"})
    counter.add(3, {"env": "a"})
    counter.add(1.5, {"env": "b"})
    meter.create_up_down_counter("open").add(4)
    meter.create_up_down_counter("open").add(-1)
    lengths = meter.create_histogram(
        "length", "{token}", explicit_bucket_boundaries_advisory=[1, 10]
    )
    for value in (0.5, 3, 3, 30):
        lengths.record(value)
    meter.create_gauge("temperature").set(7)
    meter.create_gauge("temperature").set(5)


def test_the_driver_has_what_it_would_have_measured_itself(driver: Driver) -> None:
    here, worker = Driver(), ToldMeters(silent)
    measure_all_kinds(here.provider.get_meter("users", "1.2"))
    measure_all_kinds(worker.get_meter("users", "1.2"))
    driver.take(worker)
    there = driver.all_points()
    assert {"steps", "open", "length", "temperature"} == set(there)
    for name, points in here.all_points().items():
        for ours, theirs in zip(there[name], points, strict=True):
            expected = _described(theirs)
            if name == "temperature":
                expected["attributes"] = {"tinker_ray.worker": "worker-0"}
            assert expected == _described(ours)
    here.provider.shutdown()


def _described(point: Any) -> dict[str, Any]:  # noqa: ANN401 - of any kind
    names = ("attributes", "value", "sum", "count", "min", "max", "bucket_counts")
    shown = {name: getattr(point, name) for name in names if hasattr(point, name)}
    return shown | {"attributes": dict(point.attributes)}


def test_workers_add_up_and_keep_gauges_of_their_own(driver: Driver) -> None:
    workers = {f"worker-{number}": ToldMeters(silent) for number in range(3)}
    for _ in range(2):  # what was told once is not told again
        for number, (name, worker) in enumerate(workers.items()):
            meter = worker.get_meter("users")
            meter.create_counter("steps").add(10)
            meter.create_histogram("length").record(number)
            meter.create_gauge("queue").set(number)
            driver.take(worker, name)
    points = driver.all_points()
    assert [60] == [point.value for point in points["steps"]]
    assert [(6, 6)] == [(point.count, point.sum) for point in points["length"]]
    assert {f"worker-{number}": number for number in range(3)} == {
        point.attributes["tinker_ray.worker"]: point.value for point in points["queue"]
    }


def test_nothing_is_told_of_nothing_and_the_first_measurement_is_announced() -> None:
    told: list[str] = []
    worker = ToldMeters(lambda: told.append("first"))
    counter = worker.get_meter("users").create_counter("steps")
    assert () == worker.tally.take()
    counter.add(1)
    counter.add(1)
    assert ["first"] == told
    assert [2] == [series.value for series in worker.tally.take()]
    counter.add(1)
    assert ["first", "first"] == told


def observe(values: list[float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(values.pop(0), {"disk": "a"})]


def generated() -> Generator[Iterable[Observation], CallbackOptions]:
    yield []
    yield [Observation(1)]
    yield [Observation(2)]


def test_instruments_that_are_asked_tell_their_increase(driver: Driver) -> None:
    worker = ToldMeters(silent)
    meter = worker.get_meter("users")
    had_observed = worker.has_observed
    meter.create_observable_counter("read", [observe([5, 8, 2])])  # begun anew at last
    meter.create_observable_up_down_counter("held", [observe([5, 3, 4])])
    meter.create_observable_gauge("warmth", [observe([5, 3, 4])])
    meter.create_observable_gauge("generated", [generated()])
    assert (False, True) == (had_observed, worker.has_observed)
    for _ in range(2):
        worker.observe()
        driver.take(worker)
    assert {(("disk", "a"),): 8} == driver.numbers("read")
    assert {(("disk", "a"),): 3} == driver.numbers("held")
    worker.observe()
    driver.take(worker)
    assert {(("disk", "a"),): 10} == driver.numbers("read")
    assert {(("disk", "a"), ("tinker_ray.worker", "worker-0")): 4} == driver.numbers("warmth")


class Colour(enum.StrEnum):
    RED = "red"


class Real(float):
    """As numpy's numbers are."""


def test_odd_values_travel_as_plain_ones_and_bad_ones_cost_a_warning(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    worker = ToldMeters(silent)
    counter: Any = worker.get_meter("users").create_counter("steps")
    counter.add(Real(2.5), {"colour": Colour.RED, "sizes": [1, Real(2)], "other": ValueError("x")})
    assert not caplog.records
    counter.add(-1)
    counter.add("many")
    counter.add(None)
    assert ["must not be negative", "cannot be 'many'", "cannot be None"] == [
        next(
            part
            for part in ("must not be negative", "cannot be 'many'", "cannot be None")
            if part in record.getMessage()
        )
        for record in caplog.records
    ]
    [series] = worker.tally.take()
    assert (2.5, float) == (series.value, type(series.value))
    assert (("colour", "red"), ("other", "x"), ("sizes", (1, 2.0))) == series.attributes
    assert [str, float] == [type(series.attributes[0][1]), type(series.attributes[2][1][1])]


def test_a_callback_that_fails_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    worker = ToldMeters(silent)
    worker.get_meter("users").create_observable_gauge("warmth", [observe([])])
    worker.observe()
    assert ["warmth cannot be observed"] == [record.getMessage() for record in caplog.records]


def test_what_is_kept_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tally, "MAX_SERIES", 3)
    monkeypatch.setattr(tally, "MAX_VALUES", 3)
    worker = ToldMeters(silent)
    meter = worker.get_meter("users")
    for number in range(10):
        meter.create_counter("steps").add(1, {"number": number})
        meter.create_histogram("length").record(number)
        meter.create_histogram("length").record(0)
    assert ["so much is measured that some of it is dropped: Tally(series=4, values=3)"] == [
        record.getMessage() for record in caplog.records
    ]
    *sums, spread = worker.tally.take()
    assert [1, 1, 1] == [series.value for series in sums]
    assert {0: 11, 1: 1, 2: 1} == spread.values


class Broken(MeterProvider):
    def get_meter(self, *_: object, **__: object) -> Meter:
        raise OSError("no disk")


def test_a_provider_that_fails_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    worker = ToldMeters(silent)
    merger = Merger("worker-0", Broken(shutdown_on_exit=False))
    for _ in range(2):
        worker.get_meter("users").create_counter("steps").add(1)
        merger.merge(worker.tally.take())
    assert [(logging.WARNING, "measurements of worker-0 are lost")] == [
        (record.levelno, record.getMessage()) for record in caplog.records
    ]


INSTALLED = """
import sys
from opentelemetry import metrics
early = metrics.get_meter("early").create_counter("before")
from tinker_ray.telemetry.told_meters import ToldMeters, install
told = ToldMeters(lambda: None)
{before}
print(install(told))
early.add(2)
metrics.get_meter("late").create_counter("after").add(3)
print([series.value for series in told.tally.take()])
print("opentelemetry.sdk.metrics" in sys.modules)
"""
NOT_OVER = "metrics.set_meter_provider(metrics.NoOpMeterProvider())"


@pytest.mark.parametrize(
    "before, shown", [("", ["True", "[2, 3]", "False"]), (NOT_OVER, ["False", "[]", "False"])]
)
def test_it_takes_the_place_of_no_other_provider_and_loads_no_sdk(
    before: str, shown: list[str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", INSTALLED.format(before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (shown, "") == (run.stdout.split("\n")[:3], run.stderr)

"""A provider of OpenTelemetry meters whose measurements are told to another process.

For processes that run users' functions on behalf of another one, whose own provider then gets them
(:mod:`tinker_ray.telemetry.merge`): views, buckets, temporality and export are all decided there.
So this is written on the OpenTelemetry API alone, and loads no SDK. Invariant: measuring never
raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, CallbackT, Observation

from tinker_ray.telemetry.tally import Attributes, Kind, Scope, Source, Tally, plain

logger = logging.getLogger(__name__)

Noted: TypeAlias = Mapping[str, Any] | None
"""The attributes of a measurement, as users give them."""
_MONOTONIC = (Kind.COUNTER, Kind.HISTOGRAM)


def install(provider: metrics.MeterProvider) -> bool:
    """Make a provider the process's, unless it has one.

    Instruments that were made before are its, too.

    Returns:
        Whether it is.
    """
    present = metrics.get_meter_provider()
    is_of_the_api = type(present).__module__.startswith(metrics.__name__)
    if not is_of_the_api or isinstance(present, metrics.NoOpMeterProvider):
        return False  # the user's code, or its environment, chose another one
    metrics.set_meter_provider(provider)
    return True


class ToldMeters(metrics.MeterProvider):
    """Makes meters that add up what is measured.

    Args:
        on_first: Called, in whatever thread, with the first measurement after a taking.
    """

    def __init__(self, on_first: Callable[[], object]) -> None:
        self.tally = Tally(on_first)
        self._observed: list[_Observed] = []

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Noted = None,
    ) -> metrics.Meter:
        """Make a meter."""
        scope = Scope(name, version, schema_url, plain(attributes))
        return _ToldMeter(scope, self.tally, self._observed)

    @property
    def has_observed(self) -> bool:
        """Whether there are instruments that have to be asked."""
        return bool(self._observed)

    def observe(self) -> None:
        """Ask those instruments. Runs users' code: call it where that may block."""
        for observed in tuple(self._observed):
            observed.ask()


class _Written:
    """What all instruments that are written to share."""

    def __init__(self, source: Source, tally: Tally) -> None:
        self._source = source
        self._tally = tally

    def _note(self, amount: float, attributes: Noted) -> None:
        try:
            if amount < 0 and self._source.kind in _MONOTONIC:
                logger.warning("%s must not be negative: %r", self._source.name, amount)
            else:
                self._tally.note(self._source, amount, attributes)
        except Exception:  # a border: the values are the user's
            logger.warning("%s cannot be %r", self._source.name, amount, exc_info=True)


class _Counter(_Written, metrics.Counter, metrics.UpDownCounter):
    def add(self, amount: float, attributes: Noted = None, context: object = None) -> None:
        del context
        self._note(amount, attributes)


class _Histogram(_Written, metrics.Histogram):
    def record(self, amount: float, attributes: Noted = None, context: object = None) -> None:
        del context
        self._note(amount, attributes)


class _Gauge(_Written, metrics.Synchronous):
    def set(self, amount: float, attributes: Noted = None, context: object = None) -> None:
        del context
        self._note(amount, attributes)


class _Observed(
    metrics.ObservableCounter, metrics.ObservableUpDownCounter, metrics.ObservableGauge
):
    """An instrument that is asked; what it says of a counter is the whole sum so far."""

    def __init__(self, source: Source, tally: Tally, callbacks: Sequence[CallbackT] | None) -> None:
        self._source = source
        self._tally = tally
        self._callbacks = [_asked(callback) for callback in callbacks or ()]
        self._sums: dict[Attributes, float] = {}

    def ask(self) -> None:
        """Take in what the callbacks say now."""
        for callback in self._callbacks:
            try:
                for observation in callback(CallbackOptions()):
                    self._take(observation)
            except Exception:  # a border: the callbacks are the user's
                logger.warning("%s cannot be observed", self._source.name, exc_info=True)

    def _take(self, observation: Observation) -> None:
        value = observation.value
        if self._source.kind is not Kind.GAUGE:
            key = plain(observation.attributes)
            before = self._sums.get(key, 0)
            self._sums[key] = value
            has_begun_anew = self._source.kind is Kind.COUNTER and value < before
            value = value if has_begun_anew else value - before
        if value or self._source.kind is Kind.GAUGE:
            self._tally.note(self._source, value, observation.attributes)


def _asked(callback: CallbackT) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Have a generator, which OpenTelemetry allows, asked like a function."""
    if not isinstance(callback, Generator):
        return callback
    next(callback)
    return callback.send


class _ToldMeter(metrics.Meter):
    """Makes instruments that add up what they measure."""

    def __init__(self, scope: Scope, tally: Tally, observed: list[_Observed]) -> None:
        super().__init__(scope.name, scope.version, scope.schema_url)
        self._scope = scope
        self._tally = tally
        self._observed = observed

    def create_counter(self, name: str, unit: str = "", description: str = "") -> metrics.Counter:
        return _Counter(self._source(Kind.COUNTER, name, unit, description), self._tally)

    def create_up_down_counter(
        self, name: str, unit: str = "", description: str = ""
    ) -> metrics.UpDownCounter:
        return _Counter(self._source(Kind.UP_DOWN_COUNTER, name, unit, description), self._tally)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> metrics.Histogram:
        advised = explicit_bucket_boundaries_advisory
        boundaries = None if advised is None else tuple(advised)
        source = Source(self._scope, Kind.HISTOGRAM, name, unit, description, boundaries)
        return _Histogram(source, self._tally)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:  # noqa: ANN401 - the API's class of gauges has no public name
        return _Gauge(self._source(Kind.GAUGE, name, unit, description), self._tally)

    def create_observable_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> metrics.ObservableCounter:
        return self._observable(Kind.COUNTER, name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> metrics.ObservableUpDownCounter:
        return self._observable(Kind.UP_DOWN_COUNTER, name, callbacks, unit, description)

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> metrics.ObservableGauge:
        return self._observable(Kind.GAUGE, name, callbacks, unit, description)

    def _source(self, kind: Kind, name: str, unit: str, description: str) -> Source:
        return Source(self._scope, kind, name, unit or "", description or "")

    def _observable(
        self,
        kind: Kind,
        name: str,
        callbacks: Sequence[CallbackT] | None,
        unit: str,
        description: str,
    ) -> _Observed:
        observed = _Observed(self._source(kind, name, unit, description), self._tally, callbacks)
        self._observed.append(observed)
        return observed

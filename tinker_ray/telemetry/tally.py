"""What was measured in this process and has not been told yet: sums, values and last values.

Plain values that pickle, without OpenTelemetry. Invariants: everything that is measured is taken
once; what is kept is bounded, and what exceeds that is dropped with a warning, never waited for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

MAX_SERIES = 10_000
"""Instruments, times the attributes that they are used with, between two times of telling."""
MAX_VALUES = 100_000
"""Different values of all histograms together, likewise."""

Attributes: TypeAlias = tuple[tuple[str, Any], ...]
"""Names and plain values, sorted by the names."""


class Kind(Enum):
    """What becomes of the measurements of an instrument."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Scope:
    """Who measures: what a meter is made with."""

    name: str
    version: str | None = None
    schema_url: str | None = None
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Source:
    """An instrument, as far as another process has to know it.

    Attributes:
        boundaries: Of the buckets of a histogram, as its maker advises.
    """

    scope: Scope
    kind: Kind
    name: str
    unit: str = ""
    description: str = ""
    boundaries: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """What an instrument measured with the same attributes.

    Attributes:
        value: The sum since the last time; of a gauge, the last value.
        values: Of a histogram: how often each value was recorded.
    """

    source: Source
    attributes: Attributes
    value: float = 0
    values: Mapping[float, int] | None = None


class Tally:
    """Adds up measurements, from any thread, until they are taken.

    Args:
        on_first: Called with the first measurement after a taking, in whatever thread.
    """

    def __init__(self, on_first: Callable[[], object]) -> None:
        self._on_first = on_first
        self._lock = threading.Lock()
        self._numbers: dict[tuple[Source, Attributes], float] = {}
        self._values: dict[tuple[Source, Attributes], dict[float, int]] = {}
        self._num_values = 0
        self._has_warned = False

    def __repr__(self) -> str:
        """Show how much is kept."""
        return f"Tally(series={len(self._numbers) + len(self._values)}, values={self._num_values})"

    def note(self, source: Source, amount: float, attributes: Mapping[str, Any] | None) -> None:
        """Take in a measurement: an increment, a value of a histogram or the value of a gauge."""
        key = source, plain(attributes)
        number = amount if type(amount) in _NUMBERS else float(amount)
        with self._lock:
            is_first = not self._numbers and not self._values
            is_kept = (
                self._note_value(key, number)
                if source.kind is Kind.HISTOGRAM
                else self._note_number(key, number)
            )
        if not is_kept:
            self._warn()
        elif is_first:
            self._on_first()

    def take(self) -> tuple[Series, ...]:
        """Give what was measured since the last time."""
        if not self._numbers and not self._values:
            return ()
        with self._lock:
            numbers, self._numbers = self._numbers, {}
            values, self._values = self._values, {}
            self._num_values = 0
        sums = [
            Series(source, attributes, value) for (source, attributes), value in numbers.items()
        ]
        spread = [Series(*key, values=counts) for key, counts in values.items()]
        return (*sums, *spread)

    def _note_number(self, key: tuple[Source, Attributes], number: float) -> bool:
        before = self._numbers.get(key)
        if before is None and len(self._numbers) >= MAX_SERIES:
            return False
        is_gauge = key[0].kind is Kind.GAUGE
        self._numbers[key] = number if before is None or is_gauge else before + number
        return True

    def _note_value(self, key: tuple[Source, Attributes], number: float) -> bool:
        counts = self._values.get(key)
        if counts is not None and number in counts:
            counts[number] += 1
            return True
        if self._num_values >= MAX_VALUES or (counts is None and len(self._values) >= MAX_SERIES):
            return False
        self._values.setdefault(key, {})[number] = 1
        self._num_values += 1
        return True

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("so much is measured that some of it is dropped: %r", self)


_NUMBERS = (int, float)
_PLAIN = (str, bool, int, float)


def plain(attributes: Mapping[str, Any] | None) -> Attributes:
    """Turn attributes to values that can be told to any process and compared."""
    if not attributes:
        return ()
    return tuple(sorted((str(name), _plain(value)) for name, value in attributes.items()))


def _plain(value: Any) -> Any:  # noqa: ANN401 - what users attach
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    kinds = (kind for kind in _PLAIN if isinstance(value, kind))
    return next(kinds, str)(value)

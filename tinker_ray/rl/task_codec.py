"""Calls, outcomes and shipments of an executor's tasks, between this process and its workers.

Knows nothing of futures. Invariant: an outcome that cannot be understood here is an error that says
so, never silence.
"""

from __future__ import annotations

import inspect
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray import cloudpickle

from actors.shipping import Shipment
from actors.task import Outcome, Task
from tinker_ray.errors import TinkerError
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.merge import Merger

dumps: Any = cloudpickle.dumps
"""Ray has no annotations."""


class RemoteTraceback(Exception):  # noqa: N818 - as in concurrent.futures
    """The traceback in the worker, as the cause of the error here."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        """Show the traceback."""
        return f'\n"""\n{self.words}"""'


def task_of(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Task:
    """Pickle a call, as part of the present trace.

    Raises:
        TypeError: The function or an argument cannot be pickled.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        call: bytes = dumps((function, arguments, dict(keywords)))
    except Exception as error:
        message = f"{name} and its arguments cannot be sent to a worker: {error}"
        raise TypeError(message) from error
    return Task(call, name, inspect.iscoroutinefunction(function), inject())


def result_of(outcome: Outcome) -> tuple[Any, BaseException | None]:
    """Unpickle what a function returned, or the error that it raised."""
    try:
        value = pickle.loads(outcome.value)  # noqa: S301 - of our own worker
    except Exception as error:  # noqa: BLE001 - modules that only the worker has, above all
        what = "result" if outcome.traceback is None else "error"
        failure = TinkerError(f"the {what} of a task cannot be unpickled here: {error!r}")
        if outcome.traceback is not None:
            failure.__cause__ = RemoteTraceback(outcome.traceback)
        return None, failure
    if outcome.traceback is None:
        return value, None
    value.__cause__ = RemoteTraceback(outcome.traceback)
    return None, value


def call_all(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call a function once for each tuple of arguments."""
    return [function(*arguments) for arguments in calls]


def receiver(worker: str) -> Callable[[Shipment], None]:
    """Make what takes the shipments of a worker.

    Its records go to this process's loggers, its measurements to this process's instruments.
    """
    merger = Merger(worker)

    def receive(shipment: Shipment) -> None:
        log_here(shipment.records)
        merger.merge(shipment.measured)

    return receive


def log_here(records: Iterable[Mapping[str, Any]]) -> None:
    """Hand log records of a worker to this process's loggers."""
    for plain in records:
        record = logging.makeLogRecord(dict(plain))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

"""Where the numbers of a run go: a JSON line per step always, and trackers as one wants them.

Knows nothing of what the numbers mean. Invariant: a tracker that fails costs its own lines and one
warning, never the run.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BeforeValidator

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.logger_trackers import TensorBoardLogger, TrackioLogger, WandbLogger

TrackerName = Literal["tensorboard", "wandb", "trackio"]
TrackerNames: TypeAlias = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given),
]
"""As a setting: a list, or names with commas between them, as the command line gives them."""
PROJECT = "tinker-ray"
_log = logging.getLogger(__name__)


class Logger(Protocol):
    """Takes the metrics of a run, step by step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step, counted from 1; 0 is before training."""
        ...

    def close(self) -> None:
        """Write what is left; idempotent."""
        ...


class JsonlLogger:
    """Writes ``{"step": …, …}`` as a line of a file; not-a-number and infinities become null.

    Args:
        path: The file; it is gone on with, and made at the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line. It is in the file when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **metrics}))

    def close(self) -> None:
        """Nothing is held."""


class LoggerGroup:
    """Passes metrics on to several loggers.

    Args:
        loggers: By the name that a warning says.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self._loggers = dict(loggers)
        self._open = dict(loggers)
        self._warned: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass metrics on to all of them."""
        for name, logger in self._loggers.items():
            self._guard(name, partial(logger.log, step, metrics))

    def close(self) -> None:
        """Close all of them; idempotent."""
        to_close, self._open = self._open, {}
        for name, logger in to_close.items():
            self._guard(name, logger.close)

    def _guard(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a border: what others wrote never stops a run
            if name not in self._warned:
                self._warned.add(name)
                _log.warning("logger %s failed, the run goes on: %r", name, error)


def open_loggers(
    names: Sequence[TrackerName],
    directory: Path,
    *,
    config: Mapping[str, object] | None = None,
    jsonl: Path | None = None,
) -> LoggerGroup:
    """Open the loggers of a run.

    Args:
        names: Trackers, besides JSON lines.
        directory: The run directory: trackers that write files write them below it, and its name is
            that of the run.
        config: The settings, shown by trackers that show any.
        jsonl: The file of JSON lines; None if the caller keeps records of its own.

    Raises:
        ConfigurationError: A tracker is unknown, or its package is not installed.
    """
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoardLogger(directory / "tensorboard"),
        "wandb": lambda: WandbLogger(directory, project=PROJECT, config=dict(config or {})),
        "trackio": lambda: TrackioLogger(directory, project=PROJECT, config=dict(config or {})),
    }
    loggers: dict[str, Logger] = {} if jsonl is None else {"jsonl": JsonlLogger(jsonl)}
    for name in names:
        if name not in makers:
            known = ", ".join(makers)
            raise ConfigurationError(f"logger {name!r} is unknown: use one of {known}")
        try:
            loggers[name] = makers[name]()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a border: a tracker that is down stops no run
            _log.warning("logger %s cannot be opened, the run goes on: %r", name, error)
    return LoggerGroup(loggers)


def numbers_of(record: Mapping[str, object]) -> dict[str, float]:
    """Pick what is a number out of a record: no text, no flags, nothing that was not measured."""
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "step"
    }


def _line(values: Mapping[str, object]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
    return json.dumps(finite, default=float) + "\n"

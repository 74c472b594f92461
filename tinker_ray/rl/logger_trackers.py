"""Trackers of other projects, each loaded when it is asked for.

Knows nothing of runs but a folder and a name. Invariant: a package that is missing is named at the
opening, with the extra that brings it, and never later.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinker_ray.errors import ConfigurationError

EVALUATED = "eval_"
EVALUATED_STEP = "evaluated_step"


class TensorBoardLogger:
    """Writes event files, which TensorBoard shows; needs no torch.

    Args:
        folder: Of the event files.

    Raises:
        ConfigurationError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        module = _require("tensorboardX", extra="tensorboard")
        self._writer: Any = module.SummaryWriter(logdir=str(folder), flush_secs=10)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve; not-a-number is a point too, and shown as such."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left; idempotent."""
        self._writer.close()


class WandbLogger:
    """A run of Weights & Biases; a run that is gone on with is the same run there.

    ``WANDB_MODE=offline`` writes below the run directory and sends nothing.

    Args:
        directory: The run directory; its name is the run's name and id.
        project: Of the run.
        config: Settings to show.

    Raises:
        ConfigurationError: wandb is not installed.
    """

    def __init__(self, directory: Path, *, project: str, config: Mapping[str, object]) -> None:
        module = _require("wandb", extra="wandb")
        self._run: Any = module.init(
            project=project,
            name=directory.name,
            id=directory.name,
            resume="allow",
            dir=str(directory),
            config=dict(config),
        )
        self._run.define_metric(f"{EVALUATED}*", step_metric=EVALUATED_STEP)
        self._newest = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row, or what came late to the newest one, since the service refuses older ones.

        Evaluations carry the step that they judged as ``evaluated_step``, their x-axis.
        """
        row = dict(metrics)
        if any(name.startswith(EVALUATED) for name in row):
            row[EVALUATED_STEP] = step
        self._newest = max(self._newest, step)
        self._run.log(row, step=self._newest)

    def close(self) -> None:
        """Send what is left; idempotent."""
        run, self._run = self._run, None
        if run is not None:
            run.finish()


class TrackioLogger:
    """A run of trackio, kept on this machine unless trackio is told otherwise.

    Args:
        directory: The run directory; its name is the run's name.
        project: Of the run.
        config: Settings to show.

    Raises:
        ConfigurationError: trackio is not installed.
    """

    def __init__(self, directory: Path, *, project: str, config: Mapping[str, object]) -> None:
        module = _require("trackio", extra="trackio")
        self._run: Any = module.init(
            project=project,
            name=directory.name,
            resume="allow",
            config=dict(config),
            embed=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row; what is not finite is left out, since its store holds JSON."""
        self._run.log({k: v for k, v in metrics.items() if math.isfinite(v)}, step=step)

    def close(self) -> None:
        """Write what is left; idempotent."""
        run, self._run = self._run, None
        if run is not None:
            run.finish()


def _require(module: str, *, extra: str) -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"logger {extra!r} needs {module}, which cannot be imported ({error}): "
            f"pip install 'tinker-ray[{extra}]'"
        ) from error

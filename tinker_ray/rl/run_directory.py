"""The folder of a run: settings, metrics, transcripts, plot, manifest and summary.

Knows nothing of training. Invariants: the manifest is replaced atomically, after everything that it
speaks of is on disk; a folder has one writer at a time, held by a lock that ends with its process.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ValidationError

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.logger import Logger, numbers_of
from tinker_ray.rl.plot import plot_metrics, plot_reward
from tinker_ray.rl.record import GroupRecord, Manifest, StepRecord
from tinker_ray.rl.retention import Retention

LATEST = "latest"
ROLLED_BACK = ("metrics.jsonl", "groups.jsonl")
"""What speaks of single steps."""
R = TypeVar("R")


class RunDirectory:
    """An open run directory; use :func:`open_run` to make or find one.

    Attributes:
        path: The folder.
        manifest: Where the run stands.
        is_resumed: Whether the folder held an unfinished run.
        logger: Gets the numbers of each step that is written down; closed with the directory.
        retention: Deletes checkpoints that a new one makes superfluous.
    """

    logger: Logger | None = None
    retention: Retention | None = None

    def __init__(self, path: Path, manifest: Manifest, lock: IO[str], *, is_resumed: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.is_resumed = is_resumed
        self._lock = lock

    def close(self) -> None:
        """Close the logger and let another process write here; idempotent."""
        if self.logger is not None:
            self.logger.close()
        self._lock.close()

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        _replace(self.path / "manifest.json", manifest.model_dump_json(indent=2))
        self.manifest = manifest

    def write_summary(self, summary: BaseModel) -> None:
        """Write what the run came to."""
        _replace(self.path / "summary.json", summary.model_dump_json(indent=2) + "\n")

    def append_step(self, record: StepRecord) -> None:
        """Add a line to ``metrics.jsonl``, and tell the logger."""
        _append(self.path / "metrics.jsonl", record.model_dump_json())
        if self.logger is not None:
            self.logger.log(record.step, numbers_of(record.model_dump()) | record.selection)

    async def add_evaluation(
        self, step: int, *, accuracy: float, eval_s: float, ended_s: float
    ) -> None:
        """Write an evaluation into the line of the step whose weights it judged.

        The logger hears of it at that step, too, though later ones were logged before.
        """
        found = {"eval_accuracy": accuracy, "eval_s": eval_s, "eval_elapsed_s": ended_s}
        rows = [row | found if row["step"] == step else row for row in self.rows()]
        text = "".join(f"{json.dumps(row, separators=(',', ':'))}\n" for row in rows)
        _replace(self.path / "metrics.jsonl", text)
        if self.logger is not None:
            self.logger.log(step, found)
        await self.release_checkpoint(step, accuracy)

    async def release_checkpoint(self, step: int, score: float | None = None) -> None:
        """Say how good the checkpoint of a step is, for which retention waited."""
        path = self.checkpoint_of(step)
        if self.retention is not None and path is not None:
            await self.retention.judge(path, score)

    def checkpoint_of(self, step: int) -> str | None:
        """Look up the newest checkpoint of so many steps; None if there was none."""
        paths = [line["path"] for line in self.checkpoints() if line["steps_done"] == step]
        return paths[-1] if paths else None

    def go_back(self, steps_done: int) -> None:
        """Let the run stand at an earlier checkpoint, which there is, and forget the rest."""
        update = {"steps_done": steps_done, "checkpoint": self.checkpoint_of(steps_done)}
        self.write_manifest(self.manifest.model_copy(update=update))
        self.forget_after(steps_done)

    def append_groups(self, records: Sequence[GroupRecord]) -> None:
        """Add lines to ``groups.jsonl``."""
        if records:
            lines = "\n".join(record.model_dump_json(exclude_none=True) for record in records)
            _append(self.path / "groups.jsonl", lines)

    def groups(self) -> list[GroupRecord]:
        """Read ``groups.jsonl``."""
        lines = _lines(self.path / "groups.jsonl")
        return [GroupRecord.model_validate_json(line) for line in lines]

    def staleness(self) -> dict[int, int]:
        """Count the groups that were trained on, by how many steps old their weights were."""
        ages = Counter(
            group.step - 1 - group.version for group in self.groups() if group.version is not None
        )
        return dict(sorted(ages.items()))

    def write_staleness(self) -> None:
        """Write ``staleness.json``: the number of groups by age."""
        _replace(self.path / "staleness.json", json.dumps(self.staleness()) + "\n")

    def append_checkpoint(self, steps_done: int, checkpoint: str) -> None:
        """Add a line to ``checkpoints.jsonl``."""
        line = json.dumps({"steps_done": steps_done, "path": checkpoint})
        _append(self.path / "checkpoints.jsonl", line)

    async def delete_superfluous_checkpoints(self, *, is_judged: bool = True) -> None:
        """Keep to the rule of retention; call it when the manifest speaks of the newest one.

        Args:
            is_judged: Whether nothing more will be known of how good the newest one is; else it
                stays until :meth:`add_evaluation` or :meth:`release_checkpoint` says so.
        """
        if self.retention is not None and self.manifest.checkpoint is not None:
            scores = {row["step"]: row.get("eval_accuracy") for row in self.rows()}
            score = scores.get(self.manifest.steps_done)
            await self.retention.add(self.manifest.checkpoint, score, is_judged=is_judged)

    def steps(self) -> list[StepRecord]:
        """Read ``metrics.jsonl``."""
        lines = _lines(self.path / "metrics.jsonl")
        return [StepRecord.model_validate_json(line) for line in lines]

    def forget_after(self, steps_done: int) -> None:
        """Remove what is written of steps that the checkpoint does not contain: they are run again.

        A line that a crash cut off is one of them.
        """
        for name in ROLLED_BACK:
            path = self.path / name
            if path.exists():
                kept = [line for line in _lines(path) if _step_of(line) <= steps_done]
                _replace(path, "".join(f"{line}\n" for line in kept))

    def rows(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl`` as it is, whatever kind of run wrote it."""
        return _rows(self.path / "metrics.jsonl")

    def checkpoints(self) -> list[dict[str, Any]]:
        """Read ``checkpoints.jsonl``: ``steps_done`` and ``path``, oldest first."""
        return _rows(self.path / "checkpoints.jsonl")

    def plot_metrics(self, staleness: Mapping[int, int] | None = None) -> bool:
        """Draw ``metrics.png``.

        Args:
            staleness: How many groups were trained on at each age, in versions.

        Returns:
            Whether there is a picture: False if matplotlib is not installed.
        """
        return plot_metrics(self.rows(), self.path / "metrics.png", staleness)

    def plot(self) -> bool:
        """Draw ``reward.png``.

        Returns:
            Whether there is a picture: False if matplotlib is not installed.
        """
        return plot_reward(self.steps(), self.manifest.accuracy_before, self.path / "reward.png")

    def write_transcript(self, name: str, text: str) -> None:
        """Write ``rollouts/NAME.txt``."""
        folder = self.path / "rollouts"
        folder.mkdir(exist_ok=True)
        _replace(folder / f"{name}.txt", text)


class SeededConfig(Protocol):
    """Settings of any kind of run: frozen, comparable, written down as JSON."""

    @property
    def seed(self) -> int:
        """Names the run directory, beside the date."""
        ...

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """Write them down."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: bytes) -> Self:
        """Read them."""
        ...


def open_run(config: SeededConfig, *, root: Path, run_dir: Path | None = None) -> RunDirectory:
    """Find the unfinished run with these settings, or begin a new one.

    The candidate is ``run_dir``, or else the newest run below ``root``. It is gone on with if it
    has equal settings, is unfinished and is not being written to by another process.

    Raises:
        ConfigurationError: ``run_dir`` was given and holds another run, or is in use.
    """
    candidate = run_dir or root / LATEST
    if (candidate / "config.json").exists():
        resumed = _resume(config, candidate.resolve())
        if resumed is not None:
            _point_latest(root, resumed.path)
            return resumed
        if run_dir is not None:
            raise ConfigurationError(
                f"{run_dir} is in use or holds a run that is finished or has other settings: "
                "choose another --run-dir"
            )
    path = run_dir.resolve() if run_dir is not None else _new_path(root, config.seed)
    path.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    if lock is None:
        raise ConfigurationError(f"{path} is in use by another run")
    _replace(path / "config.json", config.model_dump_json(indent=2) + "\n")
    directory = RunDirectory(path, Manifest(), lock, is_resumed=False)
    directory.write_manifest(Manifest())
    _point_latest(root, path)
    return directory


def _resume(config: SeededConfig, path: Path) -> RunDirectory | None:
    if _read(path / "config.json", type(config).model_validate_json) != config:
        return None
    manifest = _read(path / "manifest.json", Manifest.model_validate_json) or Manifest()
    if manifest.finished:
        return None
    lock = _lock(path)
    if lock is None:
        return None
    directory = RunDirectory(path, manifest, lock, is_resumed=True)
    directory.forget_after(manifest.steps_done)
    return directory


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _read(path: Path, parse: Callable[[bytes], R]) -> R | None:
    try:
        return parse(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _lock(path: Path) -> IO[str] | None:
    lock = (path / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _new_path(root: Path, seed: int) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    names = (f"{stamp}-seed{seed}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(path for name in names if not (path := root.resolve() / name).exists())


def _point_latest(root: Path, path: Path) -> None:
    """Let ``root/latest`` lead to the newest run, replacing the link atomically."""
    root.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.relpath(path, root.resolve()))
    link = root / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)
    link.replace(root / LATEST)


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees all of the old one or all of the new one."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())

"""Runs the project's commands and examples as processes of their own, in a terminal's manner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]
CLI = ("-m", "tinker_ray.cli")
MARK = "TINKER_RAY_TEST_COMMAND"


def environment(cwd: Path, **more: str) -> dict[str, str]:
    """Give a command an engine of its own and a mark by which its processes are found."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TINKER_RAY_HOME": str(cwd / "home"),
        MARK: str(cwd),
        **more,
    }


@contextmanager
def started(*args: str, cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process group of its own; its output is read at the end."""
    with (
        (cwd / "output.txt").open("w", encoding="utf-8") as output,
        subprocess.Popen(
            [sys.executable, *args],
            cwd=cwd,
            env=environment(cwd, **more),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def run(*args: str, cwd: Path, timeout_s: float = 200, **more: str) -> str:
    """Run a command to its end and return its output; a failure shows it."""
    with started(*args, cwd=cwd, **more) as process:
        code = process.wait(timeout_s)
    output = (cwd / "output.txt").read_text(encoding="utf-8")
    assert code == 0, f"exit code {code}:\n{output}"
    return output


def summary(cwd: Path) -> dict[str, Any]:
    """Read the summary of the newest run."""
    parsed: dict[str, Any] = json.loads((cwd / "runs" / "latest" / "summary.json").read_text())
    return parsed


def survivors(cwd: Path, *, wait_s: float = 10) -> list[str]:
    """Name the processes that a command left behind, after a moment for them to go."""
    left = [process for process in psutil.process_iter() if _is_of(process, cwd)]
    _, alive = psutil.wait_procs(left, timeout=wait_s)
    return [" ".join(process.cmdline()) for process in alive if _runs(process)]


def _is_of(process: psutil.Process, cwd: Path) -> bool:
    try:
        return bool(process.environ().get(MARK) == str(cwd))
    except psutil.Error:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

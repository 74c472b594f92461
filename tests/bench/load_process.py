"""Loads in processes of their own, under any interpreter: each prints what it measured as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.stub import REPOSITORY

OWN = Path(sys.executable)
TIMEOUT_S = 600.0


def run_load(
    module: str, *arguments: object, python: Path = OWN, **environment: str
) -> dict[str, Any]:
    """Run a load to its end; give its report, which is the last line that it prints.

    Args:
        module: Of :mod:`tests.bench`.
        arguments: Of its command line.
        python: The interpreter.
        environment: Variables, beside this process's.

    Raises:
        RuntimeError: It failed; with the end of what it said on standard error.
    """
    outcome = subprocess.run(
        _command(module, arguments, python),
        env=_environment(environment),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if outcome.returncode:
        words = " ".join(map(str, arguments))
        raise RuntimeError(f"{module} {words} failed:\n{outcome.stderr[-2000:]}")
    return _report(outcome.stdout)


def start_load(
    module: str, *arguments: object, python: Path = OWN, **environment: str
) -> subprocess.Popen[str]:
    """Start a load that is told when to begin on its standard input; as :func:`run_load` else."""
    return subprocess.Popen(
        _command(module, arguments, python),
        env=_environment(environment),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _command(module: str, arguments: tuple[object, ...], python: Path) -> list[str]:
    return [str(python), "-m", f"tests.bench.{module}", *map(str, arguments)]


def _environment(more: dict[str, str]) -> dict[str, str]:
    paths = {"PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | paths | more


def _report(output: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report

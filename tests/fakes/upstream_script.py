"""Scripts as users of upstream write them, run as processes, and their results."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCRIPTS = Path(__file__).parents[1] / "contract" / "scripts"
INSTALLED = """
import runpy, sys
import tinker_ray
tinker_ray.install()
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a script with this package in upstream's place."""
TOLERANCE = 1e-4
END_S = 150


class Script:
    """A script that runs; what it prints last is its result."""

    def __init__(self, url: str, *command: str, **more: str) -> None:
        environment = os.environ | {
            "TINKER_API_KEY": "tml-any",
            "TINKER_BASE_URL": url,
            "TINKER_TELEMETRY": "0",
        }
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | more,
        )

    def result(self) -> Any:  # noqa: ANN401 - JSON
        """Wait for the end, and read the last line."""
        output, errors = self.process.communicate(timeout=END_S)
        assert self.process.returncode == 0, errors[-4000:]
        return json.loads(output.splitlines()[-1])


@contextmanager
def started(url: str, *command: str, **more: str) -> Iterator[Script]:
    """Start a script against a service; it does not outlive the block."""
    script = Script(url, *command, **more)
    try:
        yield script
    finally:
        if script.process.poll() is None:
            script.process.kill()
            script.process.communicate()


def assert_alike(expected: Any, actual: Any) -> None:  # noqa: ANN401 - JSON
    """Compare results: numbers up to rounding, everything else exactly."""
    expected_numbers, expected_words = _leaves(expected)
    numbers, words = _leaves(actual)
    assert expected_words == words
    assert pytest.approx(expected_numbers, rel=TOLERANCE, abs=TOLERANCE) == numbers


def _leaves(value: Any) -> tuple[Mapping[str, float], Mapping[str, object]]:  # noqa: ANN401
    leaves = dict(_flat(value, ""))
    numbers = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, float)}
    return numbers, {path: leaf for path, leaf in leaves.items() if path not in numbers}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path, value
    for name, each in items:
        yield from _flat(each, f"{path}.{name}")

"""The stub service as a process that a benchmark starts and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def stub_service(*options: str) -> Iterator[str]:
    """Run the service with these options; give its URL."""
    command = [sys.executable, "-m", "tests.bench.stub_service", *options]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()


def ask(base_url: str, path: str) -> dict[str, Any]:
    """Ask the service something small, such as for its ``stats``."""
    with urllib.request.urlopen(f"{base_url}/api/v1/{path}") as answer:  # noqa: S310 - our own
        found: dict[str, Any] = json.loads(answer.read())
    return found

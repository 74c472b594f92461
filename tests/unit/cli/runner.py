"""Runs the command line in this process over fake clients."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.fakes.rest import FakeClients, FakeRest
from tinker_ray.cli.app import app
from tinker_ray.cli.terminal import Terminal


@dataclass
class Outcome:
    """How a command ended, and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def value(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON on standard output."""
        return json.loads(self.output)

    @property
    def lines(self) -> list[str]:
        """The lines of standard output, columns parted by single spaces."""
        return [" ".join(line.split()) for line in self.output.splitlines()]


def run(
    *arguments: str,
    rest: FakeRest | None = None,
    answer: str = "",
    clients: FakeClients | None = None,
    **more: Any,  # noqa: ANN401 - of the terminal
) -> Outcome:
    """Run ``tinker-ray ARGUMENTS``; ``answer`` is typed in."""
    opened = clients or FakeClients(rest or FakeRest())
    # No test reads or writes the user's own keys.
    terminal = Terminal(clients=opened, **{"credentials": Path(os.devnull), **more})
    result = CliRunner().invoke(app, list(arguments), input=answer, obj=terminal)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)

"""The command line: each command is in a module of its own that registers itself here.

Loads neither ray nor torch before a command needs them.
"""

from __future__ import annotations

import sys

import typer

from tinker_ray.cli import serve, train, version
from tinker_ray.errors import TinkerError

app = typer.Typer(
    name="tinker-ray",
    help="The Tinker fine-tuning SDK as a distributed runtime on Ray, with an embedded engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serve, train, version):
    command.register(app)


def main() -> None:
    """Run the command line; an error of ours is one line, not a traceback."""
    try:
        app()
    except TinkerError as error:
        print(f"tinker-ray: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)

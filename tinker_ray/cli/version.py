"""``tinker-ray version``."""

from __future__ import annotations

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.terminal import Terminal
from tinker_ray.version import __version__


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, version, "version")


def version(terminal: Terminal) -> None:
    """Print the version."""
    terminal.done(f"tinker-ray {__version__}", {"version": __version__})

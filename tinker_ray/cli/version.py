"""``tinker-ray version``."""

from __future__ import annotations

import typer

from tinker_ray.version import __version__


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="version")(version)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)

"""The command line: each command is in a module of its own that registers itself here.

Loads neither ray nor torch before a command needs them. Exit codes: 0, 1 for errors that are
explained on standard error, 2 for a wrong usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from tinker_ray.cli import (
    auth,
    billing,
    checkpoint,
    model,
    run,
    serve,
    session,
    status,
    train,
    version,
)
from tinker_ray.cli.command import remember
from tinker_ray.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, explain
from tinker_ray.errors import TinkerError


class _Root(TyperGroup):
    """The commands, with one place where their errors end."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer keeps its context's class to itself
        try:
            return super().invoke(ctx)
        except TinkerError as error:
            failure: Exception = error
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has left: typer ends quietly
                raise
            failure = error
        typer.echo(explain(failure), err=True)
        raise typer.Exit(EXIT_FAILED)


app = typer.Typer(
    name="tinker-ray",
    help="The Tinker fine-tuning SDK as a distributed runtime on Ray, with an embedded engine.",
    cls=_Root,
    callback=remember,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, train, run, checkpoint, session, model, auth, billing, status, version):
    command.register(app)


def main() -> None:
    """Run the command line."""
    app()

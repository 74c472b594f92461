"""How a command is added: each gets ``-f/--format`` and ``--base-url``, before or after its name.

A command is a function whose first parameter is the :class:`Terminal`; the others are its own
arguments and options.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias

import typer

from tinker_ray.cli.terminal import Format, Terminal

P = ParamSpec("P")
Command: TypeAlias = Callable[Concatenate[Terminal, P], None]

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="How to write the result; table by default."),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        help="The service; by default TINKER_BASE_URL, else the hosted one. The API key is read "
        "from TINKER_API_KEY or from `auth login`, never from an option: arguments show in "
        "process lists and shell histories.",
    ),
]


def add(app: typer.Typer, command: Command[P], name: str) -> None:
    """Add a command to an app or a group."""
    app.command(name)(_with_shared_options(command))


def remember(
    context: typer.Context,
    output_format: FormatOption = None,
    base_url: BaseUrlOption = None,
) -> None:
    """Keep the options that stand before a command for it."""
    context.obj = _told(context.obj or Terminal(), output_format, base_url)


def _told(terminal: Terminal, output_format: Format | None, base_url: str | None) -> Terminal:
    if output_format is not None:
        terminal = replace(terminal, format=output_format)
    return terminal if base_url is None else replace(terminal, base_url=base_url)


def _with_shared_options(command: Command[P]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(
        *,
        context: typer.Context,
        output_format: Format | None,
        base_url: str | None,
        **arguments: Any,  # noqa: ANN401 - the command's own
    ) -> None:
        command(_told(context.obj, output_format, base_url), **arguments)  # type: ignore[call-arg] # whatever the command takes

    _terminal, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = inspect.signature(remember, eval_str=True).parameters.values()
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by typer
    return run

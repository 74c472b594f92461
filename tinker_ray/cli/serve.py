"""``tinker-ray serve``: the embedded engine, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinker_ray.config import Secret, Settings
from tinker_ray.engine import server, tiny_adder

DEFAULT_PORT = 8000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="serve")(serve)


def serve(  # noqa: PLR0913 - the options of a command
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME or NAME=FOLDER, repeatable; by default {tiny_adder.NAME}."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and ledger; by default in TINKER_RAY_HOME."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="What clients have to send; required off loopback.")
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Sequences that may wait before samples are put off (429).")
    ] = 4096,
    until_unused: Annotated[Path | None, typer.Option(hidden=True)] = None,
    lock_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve base models over the Tinker API, until Ctrl-C."""
    if until_unused is not None:
        server.stop_when_unused(until_unused)
    server.serve(
        server.ServeOptions(
            models=server.parse_models(model or [tiny_adder.NAME]),
            data=data or Settings.from_env().home / "serve",
            host=host,
            port=port,
            api_key=Secret(api_key) if api_key else None,
            max_queued_sequences=max_queue,
            lock=lock_fd,
        )
    )

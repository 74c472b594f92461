"""``tinker-ray serve``: the embedded engine, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinker_ray.config import Secret, Settings
from tinker_ray.engine import server, tiny_adder
from tinker_ray.engine.access.api_key import ApiKey, read_keys
from tinker_ray.engine.client_flags import ClientFlags
from tinker_ray.engine.settings import HostSettings, Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PORT = 8000


_Model = Annotated[
    list[str] | None,
    typer.Option(help=f"NAME or NAME=FOLDER, repeatable; by default {tiny_adder.NAME}."),
]
_ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        help="What clients have to send, repeatable; required off loopback. Each key owns what is "
        "made with it. Other users of this machine can see the options of a process: for keys that "
        "matter there is --api-keys."
    ),
]
_ApiKeys = Annotated[
    Path | None, typer.Option(help="File of keys, a line each: OWNER:KEY or OWNER:KEY:PROJECT.")
]
_MaxQueue = Annotated[
    int, typer.Option(min=1, help="Sequences that may wait before samples are put off (429).")
]
_Wire = Annotated[
    Wire,
    typer.Option(
        help="Be like a service of the time of SDK 0.6 (json), like one that has dropped what SDK "
        "0.38 does not use (protobuf), or serve all clients."
    ),
]
_StrictLosses = Annotated[
    bool,
    typer.Option(
        "--strict-losses",
        help="Refuse losses whose formula is our own, because the service's is not public.",
    ),
]
_Flag = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE: a flag of the client configuration, repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="serve")(serve)


def serve(  # noqa: PLR0913 - the options of a command
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    model: _Model = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and ledger; by default in TINKER_RAY_HOME."),
    ] = None,
    api_key: _ApiKey = None,
    api_keys: _ApiKeys = None,
    max_queue: _MaxQueue = 4096,
    wire: _Wire = "both",
    strict_losses: _StrictLosses = False,
    flag: _Flag = None,
    until_unused: Annotated[Path | None, typer.Option(hidden=True)] = None,
    lock_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve base models over the Tinker API, until Ctrl-C."""
    if until_unused is not None:
        server.go_on_in_child(lock_fd)
        server.stop_when_unused(until_unused)
    server.serve(
        server.ServeOptions(
            models=server.parse_models(model or [tiny_adder.NAME]),
            data=data or Settings.from_env().home / "serve",
            host=host,
            port=port,
            keys=_keys(api_key or [], api_keys),
            settings=HostSettings(
                max_queued_sequences=max_queue,
                strict_losses=strict_losses,
                wire=wire,
                flags=ClientFlags.parse(flag or []),
            ),
            lock=lock_fd,
        )
    )


def _keys(texts: Sequence[str], file: Path | None) -> list[ApiKey]:
    return [
        *(ApiKey(Secret(text)) for text in texts if text),
        *(read_keys(file) if file is not None else []),
    ]

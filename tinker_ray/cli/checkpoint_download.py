"""``tinker-ray checkpoint download``: a checkpoint's files in a folder of their own.

From services that hand out archives, an archive; from others, files of an export, which is made for
a training checkpoint and deleted again. Invariant: the folder is there whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinker_ray.cli.archive import replace, safe_path, unpack
from tinker_ray.cli.checkpoint_path import PathArgument, parse
from tinker_ray.cli.command import add
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.terminal import Terminal, properties
from tinker_ray.cli.wording import size
from tinker_ray.errors import APIStatusError, TinkerError
from tinker_ray.wire import status

if TYPE_CHECKING:
    from tinker_ray.clients.rest import RestClient

EXPORT_S = 3600
"""How long an export lives that could not be deleted."""
_SIGN_AGAIN = timedelta(minutes=5)


def register(group: typer.Typer) -> None:
    """Add the command."""
    add(group, download_checkpoint, "download")


def download_checkpoint(
    terminal: Terminal,
    path: PathArgument,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the folder goes; by default here."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is there.")] = False,
) -> None:
    """Download a checkpoint into a folder named after it, in PEFT's layout.

    What an interrupted download has left is gone on with by the same command. Files of an encrypted
    export keep their suffix .age: decrypt them with `age -d`.
    """
    parse(path)
    folder = (output or Path.cwd()) / path.removeprefix("tinker://").replace("/", "_")
    if folder.exists() and not force:
        raise CommandError(f"{folder} is there already", "--force replaces it.")
    num_bytes = download(terminal, terminal.rest(), path, folder)
    value = {
        "checkpoint_path": path,
        "destination": str(folder),
        "file_size_bytes": num_bytes,
    }
    pairs = [("Checkpoint", path), ("Folder", str(folder)), ("Size", size(num_bytes))]
    terminal.show(value, properties("Downloaded", pairs))


def download(terminal: Terminal, rest: RestClient, path: str, folder: Path) -> int:
    """Download a checkpoint into a folder, which is replaced; return the bytes of its files.

    Raises:
        CommandError: It cannot be had, or holds what no checkpoint holds.
        APIError: The service refused, or could not be reached.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    kind = parse(path).checkpoint_type
    if kind == "external":
        return _files(terminal, rest, path, folder)
    try:
        return _archive(terminal, rest, path, folder)
    except APIStatusError as error:
        if not status.lacks_call(error.status_code):
            raise
        rest.get_weights_info_by_tinker_path(path).result()  # fails if it is the checkpoint
    if kind == "sampler":
        raise CommandError(
            f"this service gives no sampler checkpoints out: {path}",
            "Download a training checkpoint, from TrainingClient.save_state().",
        )
    return _exported(terminal, rest, path, folder)


def _archive(terminal: Terminal, rest: RestClient, path: str, folder: Path) -> int:
    async def find() -> str:
        return (await rest.get_checkpoint_archive_url_from_tinker_path(path)).url

    archive = folder.with_name(f"{folder.name}.tar")
    terminal.fetch(find, archive, "Downloading")
    try:
        return unpack(archive, folder)
    finally:
        archive.unlink()


def _exported(terminal: Terminal, rest: RestClient, path: str, folder: Path) -> int:
    """Have a training checkpoint exported for the download."""
    terminal.note(f"Exporting {path}: this starts a training session on its base model")
    with terminal.service() as service:
        training = service.create_training_client_from_state(
            path, user_metadata={"created_by": "tinker-ray checkpoint download"}
        )
        export = training.save_weights_external("download", ttl_seconds=EXPORT_S).result().path
        try:
            return _files(terminal, rest, export, folder, renewed=True)
        finally:
            _delete(terminal, rest, export)


def _delete(terminal: Terminal, rest: RestClient, export: str) -> None:
    try:
        rest.delete_checkpoint_from_tinker_path(export).result()
    except TinkerError as error:
        terminal.note(f"{export} could not be deleted ({error}); it expires within {EXPORT_S} s")


def _files(
    terminal: Terminal, rest: RestClient, path: str, folder: Path, *, renewed: bool = False
) -> int:
    """Download each file of an export, whose addresses are signed anew before they expire."""
    signed = rest.get_external_weights_urls(path).result()
    if not signed.urls:
        raise CommandError(f"{path} has no files")
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))

    async def find(name: str) -> str:
        nonlocal signed
        if datetime.now(UTC) >= signed.expires - _SIGN_AGAIN:
            signed = await rest.get_external_weights_urls(path)
            if renewed:
                await rest.set_checkpoint_ttl_from_tinker_path(path, EXPORT_S)
        return signed.urls[name]

    try:
        num_bytes = 0
        places = {name: safe_path(scratch, name) for name in sorted(signed.urls)}
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            num_bytes += terminal.fetch(partial(find, name), place, name)
        replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return num_bytes

"""``tinker-ray checkpoint publish``, ``unpublish`` and ``set-ttl``: who may read, and how long."""

from __future__ import annotations

from typing import Annotated

import typer

from tinker_ray.cli.checkpoint_path import PathArgument, parse
from tinker_ray.cli.command import add
from tinker_ray.cli.failure import CommandError
from tinker_ray.cli.terminal import Terminal


def register(group: typer.Typer) -> None:
    """Add the commands."""
    add(group, publish, "publish")
    add(group, unpublish, "unpublish")
    add(group, set_ttl, "set-ttl")


def publish(terminal: Terminal, path: PathArgument) -> None:
    """Let everybody read a checkpoint."""
    parse(path)
    terminal.rest().publish_checkpoint_from_tinker_path(path).result()
    terminal.done(f"Published {path}", {"tinker_path": path, "public": True})


def unpublish(terminal: Terminal, path: PathArgument) -> None:
    """Make a published checkpoint private again."""
    parse(path)
    terminal.rest().unpublish_checkpoint_from_tinker_path(path).result()
    terminal.done(f"{path} is private again", {"tinker_path": path, "public": False})


def set_ttl(
    terminal: Terminal,
    path: PathArgument,
    *,
    ttl: Annotated[int | None, typer.Option(min=1, help="Seconds from now.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let it never expire.")] = False,
) -> None:
    """Let a checkpoint expire, or not."""
    parse(path)
    if (ttl is None) is not remove:
        raise CommandError(
            "set-ttl needs one of --ttl and --remove",
            "--ttl SECONDS lets the checkpoint expire; --remove keeps it.",
        )
    terminal.rest().set_checkpoint_ttl_from_tinker_path(path, ttl).result()
    text = f"{path} expires in {ttl} s" if ttl is not None else f"{path} does not expire"
    terminal.done(text, {"tinker_path": path, "ttl_seconds": ttl})

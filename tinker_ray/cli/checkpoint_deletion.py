"""``tinker-ray checkpoint delete``: by paths, or by what a run's checkpoints have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tinker_ray.cli import moment
from tinker_ray.cli.checkpoint_path import parse
from tinker_ray.cli.command import add
from tinker_ray.cli.failure import EXIT_FAILED, CommandError
from tinker_ray.cli.terminal import Terminal
from tinker_ray.cli.wording import count, size, when
from tinker_ray.errors import NotFoundError, TinkerError

if TYPE_CHECKING:
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.types import Checkpoint

AT_ONCE = 32
"""Deletions under way at a time."""
_TYPES = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a run's checkpoints.

    Attributes:
        checkpoint_type: ``training``, ``sampler`` or ``external``; None for any.
        before: Saved earlier.
        after: Saved later.
    """

    checkpoint_type: str | None = None
    before: datetime | None = None
    after: datetime | None = None

    def of(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Keep what is meant."""
        return [checkpoint for checkpoint in checkpoints if self._means(checkpoint)]

    def _means(self, checkpoint: Checkpoint) -> bool:
        return (
            self.checkpoint_type in {None, checkpoint.checkpoint_type}
            and (self.before is None or checkpoint.time < self.before)
            and (self.after is None or checkpoint.time > self.after)
        )


def register(group: typer.Typer) -> None:
    """Add the command."""
    add(group, delete, "delete")


def delete(  # noqa: PLR0913 - the options of a command
    terminal: Terminal,
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATHS]...")] = None,
    *,
    run_id: Annotated[str | None, typer.Option(help="All of this training run.")] = None,
    checkpoint_type: Annotated[
        str | None, typer.Option("--type", help=f"With --run-id: only {', '.join(_TYPES)}.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="With --run-id: saved before, ISO 8601, UTC if not said.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="With --run-id: saved after.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete checkpoints for good: PATHS, or those of a run.

    All paths are read before the first checkpoint is deleted.
    """
    selection = Selection(
        _type(checkpoint_type),
        None if before is None else moment.parse(before),
        None if after is None else moment.parse(after),
    )
    if bool(paths) is (run_id is not None):
        raise CommandError(
            "delete needs either PATHS or --run-id",
            "For example: tinker-ray checkpoint delete --run-id <run> --before 2026-06-01",
        )
    if paths and selection != Selection():
        raise CommandError("--type, --before and --after go with --run-id, not with PATHS")
    rest = terminal.rest()
    if run_id is not None:
        chosen = selection.of(rest.list_checkpoints(run_id).result().checkpoints)
        doomed = {checkpoint.tinker_path: _described(checkpoint) for checkpoint in chosen}
    else:
        doomed = {parse(path).tinker_path: path for path in paths or ()}
    if doomed and not yes:
        _confirm(terminal, list(doomed.values()))
    _report(terminal, list(doomed), _delete_all(terminal, rest, list(doomed)))


def _confirm(terminal: Terminal, descriptions: list[str]) -> None:
    """Ask.

    Raises:
        typer.Abort: The answer is no.
    """
    terminal.note(f"{count(len(descriptions), 'checkpoint')} will be deleted for good:")
    for description in descriptions:
        terminal.note(f"  {description}")
    typer.confirm("Delete?", abort=True, err=True)


def _described(checkpoint: Checkpoint) -> str:
    saved = f"{size(checkpoint.size_bytes)}, saved {when(checkpoint.time)}"
    return f"{checkpoint.tinker_path} ({saved})"


def _delete_all(terminal: Terminal, rest: RestClient, paths: list[str]) -> dict[str, str]:
    """Delete, several at a time; return what could not be, with the reason."""
    failed: dict[str, str] = {}
    with terminal.progress("Deleting checkpoints") as progress:
        for start in range(0, len(paths), AT_ONCE):
            batch = paths[start : start + AT_ONCE]
            begun = [(path, rest.delete_checkpoint_from_tinker_path(path)) for path in batch]
            for done, (path, future) in enumerate(begun, start + 1):
                try:
                    future.result()
                except TinkerError as error:
                    failed[path] = _reason(error)
                progress(done, len(paths))
    return failed


def _reason(error: TinkerError) -> str:
    return "there is no such checkpoint" if isinstance(error, NotFoundError) else str(error)


def _report(terminal: Terminal, paths: list[str], failed: dict[str, str]) -> None:
    value = {
        "deleted_count": len(paths) - len(failed),
        "failed": [{"tinker_path": path, "error": reason} for path, reason in failed.items()],
    }
    terminal.done(f"Deleted {count(len(paths) - len(failed), 'checkpoint')}", value)
    for path, reason in failed.items():
        terminal.note(f"Not deleted: {path}: {reason}")
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _type(name: str | None) -> str | None:
    if name is None or name in _TYPES.values():
        return name
    if name not in _TYPES:
        raise CommandError(f"--type {name} is unknown", f"Use one of {', '.join(_TYPES)}.")
    return _TYPES[name]

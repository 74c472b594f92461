"""Checkpoint paths as arguments: ``tinker://<run>/<weights|sampler_weights|…>/<name>``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tinker_ray.cli.failure import CommandError

if TYPE_CHECKING:
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.types import Checkpoint, ParsedCheckpointTinkerPath

FORM = "A checkpoint path looks like tinker://<run>/weights/<name>; `checkpoint list` shows them."
PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="tinker://<run>/weights/<name>, as lists show it.")
]


def parse(path: str) -> ParsedCheckpointTinkerPath:
    """Read a path.

    Raises:
        CommandError: It has another shape.
    """
    from tinker_ray.types import ParsedCheckpointTinkerPath

    try:
        return ParsedCheckpointTinkerPath.from_tinker_path(path)
    except ValueError as error:
        raise CommandError(str(error), FORM) from None


def find(rest: RestClient, path: str) -> Checkpoint:
    """Look a checkpoint up in the list of its run.

    Raises:
        CommandError: It is not there.
        APIStatusError: The run is not, or the service refused.
    """
    parsed = parse(path)
    listed = rest.list_checkpoints(parsed.training_run_id).result()
    for checkpoint in listed.checkpoints:
        if checkpoint.tinker_path == path:
            return checkpoint
    command = f"tinker-ray checkpoint list --run-id {parsed.training_run_id}"
    raise CommandError(f"there is no checkpoint {path}", f"Those of its run: {command}")

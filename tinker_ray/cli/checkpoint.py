"""``tinker-ray checkpoint``: saved weights and what is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_ray.cli import checkpoint_deletion, checkpoint_download, checkpoint_sharing, hub
from tinker_ray.cli.checkpoint_path import PathArgument, find, parse
from tinker_ray.cli.command import add
from tinker_ray.cli.page import LimitOption, Listed, fetch
from tinker_ray.cli.terminal import Table, Terminal, properties
from tinker_ray.cli.wording import size, when, whether

if TYPE_CHECKING:
    from tinker_ray.types import Checkpoint

PAGE_CHECKPOINTS = 1000
COLUMNS = ("Checkpoint", "Type", "Size", "Public", "Created", "Expires", "Path")


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Saved weights.", no_args_is_help=True)
    add(group, list_checkpoints, "list")
    add(group, info, "info")
    checkpoint_download.register(group)
    checkpoint_sharing.register(group)
    checkpoint_deletion.register(group)
    hub.register(group)
    app.add_typer(group, name="checkpoint")


def list_checkpoints(
    terminal: Terminal,
    *,
    run_id: Annotated[str | None, typer.Option(help="Only those of this training run.")] = None,
    limit: LimitOption = 20,
) -> None:
    """List checkpoints, newest first: of all training runs, or all of one."""
    rest = terminal.rest()
    if run_id is not None:
        response = rest.list_checkpoints(run_id).result()
        listed = Listed(response.checkpoints, None)
    else:

        def page(limit: int, offset: int) -> tuple[list[Checkpoint], int | None]:
            response = rest.list_user_checkpoints(limit=limit, offset=offset).result()
            cursor = response.cursor
            return response.checkpoints, None if cursor is None else cursor.total_count

        listed = fetch(terminal, page, noun="checkpoint", limit=limit, page_size=PAGE_CHECKPOINTS)
    title = listed.title("checkpoint") + (f" of run {run_id}" if run_id else "")
    value: dict[str, Any] = {"run_id": run_id} if run_id else {}
    value["checkpoints"] = [checkpoint.model_dump(mode="json") for checkpoint in listed.items]
    terminal.show(value, Table(COLUMNS, [_row(checkpoint) for checkpoint in listed.items], title))


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    return (
        checkpoint.checkpoint_id,
        checkpoint.checkpoint_type,
        size(checkpoint.size_bytes),
        whether(checkpoint.public),
        when(checkpoint.time),
        when(checkpoint.expires_at, absent="never"),
        checkpoint.tinker_path,
    )


def info(terminal: Terminal, path: PathArgument) -> None:
    """Show one checkpoint, and what its run adapts."""
    run_id = parse(path).training_run_id
    rest = terminal.rest()
    checkpoint = find(rest, path)
    run = rest.get_training_run(run_id).result()
    value = checkpoint.model_dump(mode="json")
    value |= {"is_lora": run.is_lora, "lora_rank": run.lora_rank, "base_model": run.base_model}
    pairs = [
        *zip(COLUMNS, _row(checkpoint), strict=True),
        ("Run ID", run_id),
        ("Base model", run.base_model),
        ("LoRA", f"rank {run.lora_rank}" if run.lora_rank else whether(run.is_lora)),
        *((f"Metadata {key}", each) for key, each in (checkpoint.user_metadata or {}).items()),
    ]
    terminal.show(value, properties(f"Checkpoint {path}", pairs))

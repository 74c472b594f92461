"""``tinker-ray run``: training runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_ray.cli.command import add
from tinker_ray.cli.page import LimitOption, ScopeOption, fetch
from tinker_ray.cli.terminal import Table, Terminal, properties
from tinker_ray.cli.wording import NOTHING, text, when

if TYPE_CHECKING:
    from tinker_ray.types import Checkpoint, TrainingRun

PAGE_RUNS = 100


def _lora(run: TrainingRun) -> str:
    if not run.is_lora:
        return "no"
    return "yes" if run.lora_rank is None else f"rank {run.lora_rank}"


def _status(run: TrainingRun) -> str:
    return "failed" if run.corrupted else "ok"


COLUMNS: dict[str, tuple[str, Callable[[TrainingRun], str]]] = {
    "id": ("Run ID", lambda run: run.training_run_id),
    "model": ("Base model", lambda run: run.base_model),
    "owner": ("Owner", lambda run: run.model_owner),
    "lora": ("LoRA", _lora),
    "updated": ("Updated", lambda run: when(run.last_request_time)),
    "status": ("Status", _status),
    "checkpoint": (
        "Checkpoint",
        lambda run: run.last_checkpoint.checkpoint_id if run.last_checkpoint else NOTHING,
    ),
    "checkpoint_time": (
        "Checkpoint time",
        lambda run: when(run.last_checkpoint.time) if run.last_checkpoint else NOTHING,
    ),
}
DEFAULT_COLUMNS = "id,model,lora,updated,status"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Training runs.", no_args_is_help=True)
    add(group, list_runs, "list")
    add(group, info, "info")
    app.add_typer(group, name="run")


def list_runs(
    terminal: Terminal,
    *,
    limit: LimitOption = 20,
    columns: Annotated[
        str,
        typer.Option("--columns", "-c", help=f"Of the table, from: {', '.join(COLUMNS)}."),
    ] = DEFAULT_COLUMNS,
    access_scope: ScopeOption = None,
    project_id: Annotated[str | None, typer.Option(help="Only runs of this project.")] = None,
) -> None:
    """List training runs, newest first."""
    chosen = _columns(columns)
    rest = terminal.rest()
    options: dict[str, Any] = {"access_scope": access_scope, "project_id": project_id}
    given = {name: value for name, value in options.items() if value is not None}

    def page(limit: int, offset: int) -> tuple[list[TrainingRun], int | None]:
        response = rest.list_training_runs(limit=limit, offset=offset, **given).result()
        return response.training_runs, response.cursor.total_count

    listed = fetch(terminal, page, noun="training run", limit=limit, page_size=PAGE_RUNS)
    table = Table(
        [header for header, _cell in chosen],
        [[cell(run) for _header, cell in chosen] for run in listed.items],
        listed.title("training run"),
    )
    terminal.show({"runs": [run.model_dump(mode="json") for run in listed.items]}, table)


def info(
    terminal: Terminal,
    run_id: Annotated[str, typer.Argument(help="As `run list` shows it.")],
    *,
    access_scope: ScopeOption = None,
) -> None:
    """Show one training run."""
    given: dict[str, Any] = {} if access_scope is None else {"access_scope": access_scope.value}
    run = terminal.rest().get_training_run(run_id, **given).result()
    pairs = [
        ("Run ID", run.training_run_id),
        ("Base model", run.base_model),
        ("Owner", run.model_owner),
        ("LoRA", _lora(run)),
        ("Updated", when(run.last_request_time)),
        ("Status", _status(run)),
        *_saved("checkpoint", run.last_checkpoint),
        *_saved("sampler checkpoint", run.last_sampler_checkpoint),
        *((f"Metadata {key}", text(value)) for key, value in (run.user_metadata or {}).items()),
    ]
    terminal.show(run.model_dump(mode="json"), properties(f"Training run {run_id}", pairs))


def _saved(noun: str, checkpoint: Checkpoint | None) -> list[tuple[str, str]]:
    if checkpoint is None:
        return []
    return [(f"Last {noun}", checkpoint.tinker_path), ("  saved", when(checkpoint.time))]


def _columns(names: str) -> list[tuple[str, Callable[[TrainingRun], str]]]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown or not wanted:
        known = ", ".join(COLUMNS)
        raise typer.BadParameter(f"--columns {names}: use some of {known}")
    return [COLUMNS[name] for name in wanted]

"""``tinker-ray billing``: what an organization used, as the service reports it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinker_ray.cli import moment
from tinker_ray.cli.command import add
from tinker_ray.cli.terminal import Table, Terminal
from tinker_ray.cli.wording import NOTHING, count, text

if TYPE_CHECKING:
    from pydantic import BaseModel

STANDARD_OUTPUT = "-"
Row = Mapping[str, Any]
CsvOption = Annotated[
    str | None,
    typer.Option("--csv", metavar="PATH", help="Write CSV into a file instead; - for stdout."),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="What was used, and what it costs.", no_args_is_help=True)
    add(group, usage, "usage")
    add(group, checkpoint_storage, "checkpoint-storage")
    app.add_typer(group, name="billing")


def usage(
    terminal: Terminal,
    starting_on: Annotated[str, typer.Argument(help="ISO 8601, on an hour of UTC.")],
    ending_before: Annotated[str, typer.Argument(help="At most 14 days later.")],
    *,
    csv_path: CsvOption = None,
    sessions_csv: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write the sessions' metadata as CSV too."),
    ] = None,
) -> None:
    """Show usage hour by hour, per kind, base model, session and user.

    Costs are estimates before credits, not amounts due; a dash is a cost that is not known. JSON
    says up to when they follow invoices (`cost_data_through`).
    """
    start, end = moment.parse(starting_on), moment.parse(ending_before)
    response = terminal.admin().get_billing_usage(start, end).result()
    value = _shape(response)
    rows = [_flat(row) for row in value["data"]]
    if sessions_csv is not None:
        sessions = [
            {"session_id": session_id, "user_metadata": _packed(session.get("user_metadata"))}
            for session_id, session in value["sessions"].items()
        ]
        _write_csv(terminal, sessions, sessions_csv)
    _report(terminal, value, rows, csv_path, f"{count(len(rows), 'row')} of usage")


def checkpoint_storage(
    terminal: Terminal,
    *,
    project_id: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    csv_path: CsvOption = None,
) -> None:
    """Show what checkpoints take at present, and what a month of that would cost."""
    response = terminal.admin().get_current_checkpoint_storage_usage(project_id).result()
    value = _shape(response)
    rate = "effective_rate_usd_per_gigabyte_month"
    rows = [{rate: value.get(rate), **row} for row in value["data"]]
    _report(terminal, value, rows, csv_path, "Current checkpoint storage")


def _report(
    terminal: Terminal, value: dict[str, Any], rows: Sequence[Row], csv_path: str | None, title: str
) -> None:
    if csv_path is not None:
        _write_csv(terminal, rows, csv_path)
        return
    known = [name for name in _columns(rows) if any(row.get(name) is not None for row in rows)]
    columns = known or [NOTHING]
    cells = [[text(row[name]) if name in row else "" for name in known] for row in rows]
    terminal.show(value, Table(columns, cells, title))


def _shape(response: BaseModel) -> dict[str, Any]:
    return response.model_dump(mode="json")


def _flat(row: Row) -> Row:
    """Lay what an event says about itself beside what is said of every event."""
    envelope = {name: value for name, value in row.items() if name != "event_info"}
    return {**envelope, **(row.get("event_info") or {})}


def _packed(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _columns(rows: Iterable[Row]) -> list[str]:
    """All names, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_csv(terminal: Terminal, rows: Sequence[Row], path: str) -> None:
    if path == STANDARD_OUTPUT:
        _write(sys.stdout, rows)
        return
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        _write(file, rows)
    terminal.note(f"Wrote {count(len(rows), 'row')} to {path}")


def _write(file: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 - a text file
    writer = csv.DictWriter(file, fieldnames=_columns(rows), restval="")
    writer.writeheader()
    writer.writerows(rows)

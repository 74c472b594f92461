"""What a command speaks to: the user's terminal on one side, the service's clients on the other.

A result goes to standard output, as a table or as JSON; everything that is said beside it goes to
standard error. Knows nothing of any command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tinker_ray.clients.rest import RestClient
    from tinker_ray.clients.service import ServiceClient

JSONValue: TypeAlias = (
    "str | int | float | bool | Sequence[JSONValue] | dict[str, JSONValue] | None"
)
"""What a command reports: keys are those of the service's own answers."""
Advance: TypeAlias = Callable[[int], None]


class Format(StrEnum):
    """How results are written."""

    table = "table"
    json = "json"


@dataclass(frozen=True, slots=True)
class Table:
    """A result for people.

    Attributes:
        columns: Headers; the first column is never wrapped.
        rows: As many cells each.
        title: Above it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None


class Clients(Protocol):
    """Opens clients; tests give their own."""

    def rest(self, base_url: str | None) -> RestClient:
        """Open a client for what the service keeps."""

    def service(self, base_url: str | None) -> ServiceClient:
        """Open a session."""


class ServiceClients:
    """The real clients."""

    def rest(self, base_url: str | None) -> RestClient:
        """Open a client for what the service keeps."""
        return self.service(base_url).create_rest_client()

    def service(self, base_url: str | None) -> ServiceClient:
        """Open a session."""
        from tinker_ray.clients.service import ServiceClient

        return ServiceClient(base_url=base_url)


@dataclass(frozen=True, slots=True)
class Terminal:
    """One call of a command: how it answers, and whom it asks.

    Attributes:
        format: Of the result.
        base_url: The service; None as the environment says.
        clients: Opens them.
    """

    format: Format = Format.table
    base_url: str | None = None
    clients: Clients = field(default_factory=ServiceClients)

    def rest(self) -> RestClient:
        """Open a client for what the service keeps."""
        return self.clients.rest(self.base_url)

    def service(self) -> ServiceClient:
        """Open a session, which the caller closes."""
        return self.clients.service(self.base_url)

    @property
    def is_json(self) -> bool:
        """Whether a script reads the result."""
        return self.format is Format.json

    def show(self, value: JSONValue, table: Table) -> None:
        """Write a result: one of the two, as the format says."""
        if self.is_json:
            typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        elif sys.stdout.isatty():
            _console(stderr=False).print(_framed(table))
        else:
            typer.echo(_plain(table))

    def done(self, text: str, value: JSONValue) -> None:
        """Write that something was done."""
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False) if self.is_json else text)

    def note(self, text: str) -> None:
        """Say something beside the result."""
        typer.echo(text, err=True)

    @contextmanager
    def progress(
        self, label: str, total: int | None, *, of_bytes: bool = False
    ) -> Iterator[Advance]:
        """Show how far something is, on a terminal; scripts see nothing.

        Args:
            label: What is under way.
            total: Steps or bytes; None if unknown.
            of_bytes: The steps are bytes.
        """
        if self.is_json or not sys.stderr.isatty():
            yield lambda _steps: None
            return
        from rich import progress as rich

        amount = rich.DownloadColumn() if of_bytes else rich.MofNCompleteColumn()
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), amount)
        with rich.Progress(
            *columns, rich.TimeRemainingColumn(), console=_console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task(label, total=total)
            yield lambda steps: bar.update(task, advance=steps)


def properties(title: str, pairs: Sequence[tuple[str, str]]) -> Table:
    """Make the table of one thing: its properties, one a row."""
    return Table(("Property", "Value"), pairs, title)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, emoji=False, highlight=False, markup=False)


def _framed(table: Table) -> object:
    from rich.table import Table as RichTable
    from rich.text import Text

    framed = RichTable(title=table.title and Text(table.title))
    for position, column in enumerate(table.columns):
        framed.add_column(
            column, no_wrap=position == 0, overflow="fold", style="" if position else "cyan"
        )
    for row in table.rows:
        framed.add_row(*(Text(cell) for cell in row))
    return framed


def _plain(table: Table) -> str:
    """Align columns without frames or wrapping, for pipes and files."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[position]) for row in rows) for position in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *lines] if table.title else lines)

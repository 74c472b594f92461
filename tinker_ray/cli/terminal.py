"""What a command speaks to: the user's terminal on one side, the service's clients on the other.

A result goes to standard output, as a table or as JSON; everything that is said beside it goes to
standard error. Knows nothing of any command.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import typer

from tinker_ray.cli.fetch import Find, fetch
from tinker_ray.config import CREDENTIALS, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from tinker_ray.cli.hub import Hub
    from tinker_ray.clients.admin import AdminClient
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.clients.service import ServiceClient
    from tinker_ray.types import SupportedModel
    from tinker_ray.types.service import SelfApiKeyResponse

Report: TypeAlias = Mapping[str, object]
"""What a command reports: JSON values by the keys of the service's own answers."""
Progress: TypeAlias = Callable[[int, int | None], None]
"""Takes how much is done, and of how much if that is known."""


class Format(StrEnum):
    """How results are written."""

    table = "table"
    json = "json"


@dataclass(frozen=True, slots=True)
class Table:
    """A result for people.

    Attributes:
        columns: Headers.
        rows: As many cells each.
        title: Above it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None

    def __post_init__(self) -> None:
        """Make what a service says safe to print: no cell moves the cursor or sets colours."""
        rows = [[_printable(cell) for cell in row] for row in self.rows]
        object.__setattr__(self, "rows", rows)

    @property
    def column_widths(self) -> list[int]:
        """Characters of the longest cell of each column."""
        cells = zip(self.columns, *self.rows, strict=True)
        return [max(map(len, column)) for column in cells]

    @property
    def width(self) -> int:
        """Characters of a row in its frame."""
        return sum(width + 3 for width in self.column_widths) + 1


class Clients(Protocol):
    """Opens clients; tests give their own."""

    def rest(self, base_url: str | None) -> RestClient:
        """Open a client for what the service keeps; it makes no session."""

    def admin(self, base_url: str | None) -> AdminClient:
        """Open a client for an organization's affairs; it makes no session."""

    def service(self, base_url: str | None) -> ServiceClient:
        """Open a session."""

    def probe(
        self, base_url: str | None, api_key: str | None = None, *, timeout_s: float
    ) -> list[SupportedModel]:
        """Ask the service once which models it offers; None is the key that clients would use."""

    def describe_key(self, base_url: str | None, api_key: str | None) -> SelfApiKeyResponse:
        """Ask the service about a key; None is the one that clients would use."""

    def revoke_key(self, base_url: str | None, api_key: str) -> None:
        """Have the service forget a key."""


class ServiceClients:
    """The real clients."""

    def rest(self, base_url: str | None) -> RestClient:
        """Open a client for what the service keeps; it makes no session."""
        from tinker_ray.clients.rest import RestClient

        return RestClient(base_url=base_url)

    def admin(self, base_url: str | None) -> AdminClient:
        """Open a client for an organization's affairs; it makes no session."""
        from tinker_ray.clients.admin import AdminClient

        return AdminClient(base_url=base_url)

    def service(self, base_url: str | None) -> ServiceClient:
        """Open a session."""
        from tinker_ray.clients.service import ServiceClient

        return ServiceClient(base_url=base_url)

    def probe(
        self, base_url: str | None, api_key: str | None = None, *, timeout_s: float
    ) -> list[SupportedModel]:
        """Ask the service once which models it offers; None is the key that clients would use."""
        from tinker_ray.core.probe import probe

        settings = Settings.from_env(base_url=base_url, api_key=api_key)
        return asyncio.run(probe(settings, timeout_s=timeout_s)).supported_models

    def describe_key(self, base_url: str | None, api_key: str | None) -> SelfApiKeyResponse:
        """Ask the service about a key; None is the one that clients would use."""
        from tinker_ray.core.api_key import describe_api_key

        return asyncio.run(describe_api_key(Settings.from_env(base_url=base_url, api_key=api_key)))

    def revoke_key(self, base_url: str | None, api_key: str) -> None:
        """Have the service forget a key."""
        from tinker_ray.core.api_key import revoke_api_key

        asyncio.run(revoke_api_key(Settings.from_env(base_url=base_url, api_key=api_key)))


def _hugging_face() -> Hub:
    from tinker_ray.cli.hub import HuggingFaceHub

    return HuggingFaceHub()


@dataclass(frozen=True, slots=True)
class Terminal:
    """One call of a command: how it answers, and whom it asks.

    Attributes:
        format: Of the result.
        base_url: The service; None as the environment says.
        clients: Opens them.
        open_hub: Connects to where adapters are published.
        fetcher: Fetches a file from a signed address; see :func:`tinker_ray.cli.fetch.fetch`.
        credentials: The file of stored keys.
    """

    format: Format = Format.table
    base_url: str | None = None
    clients: Clients = field(default_factory=ServiceClients)
    open_hub: Callable[[], Hub] = _hugging_face
    fetcher: Callable[[Find, Path, Progress], Awaitable[int]] = fetch
    credentials: Path = field(default_factory=CREDENTIALS.expanduser)

    def rest(self) -> RestClient:
        """Open a client for what the service keeps."""
        return self.clients.rest(self.base_url)

    def admin(self) -> AdminClient:
        """Open a client for an organization's affairs."""
        return self.clients.admin(self.base_url)

    def service(self) -> ServiceClient:
        """Open a session, which the caller closes."""
        return self.clients.service(self.base_url)

    def fetch(self, find: Find, destination: Path, label: str) -> int:
        """Fetch a file from a signed address, and show the progress; return its size in bytes.

        Raises:
            APIError: It cannot be had.
        """

        async def fetched() -> int:
            with self.progress(label, of_bytes=True) as progress:
                return await self.fetcher(find, destination, progress)

        return asyncio.run(fetched())

    @property
    def is_json(self) -> bool:
        """Whether a script reads the result."""
        return self.format is Format.json

    def show(self, value: Report, table: Table) -> None:
        """Write a result: one of the two, as the format says.

        A table that is wider than the terminal has no frame, so that ids and paths stay whole.
        """
        if self.is_json:
            typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
            return
        console = _console(stderr=False) if sys.stdout.isatty() else None
        if console is not None and table.width <= console.width:
            console.print(_framed(table))
        else:
            typer.echo(_plain(table))

    def done(self, text: str, value: Report) -> None:
        """Write that something was done."""
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False) if self.is_json else text)

    def note(self, text: str) -> None:
        """Say something beside the result."""
        typer.echo(text, err=True)

    @contextmanager
    def progress(self, label: str, *, of_bytes: bool = False) -> Iterator[Progress]:
        """Show how far something is, on a terminal; scripts see nothing.

        Args:
            label: What is under way.
            of_bytes: What is counted are bytes.
        """
        if self.is_json or not sys.stderr.isatty():
            yield lambda _done, _total: None
            return
        from rich import progress as rich

        amount = rich.DownloadColumn() if of_bytes else rich.MofNCompleteColumn()
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), amount)
        with rich.Progress(
            *columns, rich.TimeRemainingColumn(), console=_console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def properties(title: str, pairs: Sequence[tuple[str, str]]) -> Table:
    """Make the table of one thing: its properties, one a row."""
    return Table(("Property", "Value"), pairs, title)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, emoji=False, highlight=False, markup=False)


def _framed(table: Table) -> object:
    from rich.table import Table as RichTable
    from rich.text import Text

    framed = RichTable(title=table.title and Text(table.title))
    for position, column in enumerate(table.columns):
        framed.add_column(column, no_wrap=True, style="" if position else "cyan")
    for row in table.rows:
        framed.add_row(*(Text(cell) for cell in row))
    return framed


def _plain(table: Table) -> str:
    """Align columns without frames or wrapping."""
    widths = table.column_widths
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (table.columns, *table.rows)
    ]
    return "\n".join([table.title, *lines] if table.title else lines)

"""Lists that the service gives in pages, fetched up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import typer

from tinker_ray.cli.terminal import Terminal
from tinker_ray.cli.wording import count

T = TypeVar("T")

LimitOption = Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")]


class Scope(StrEnum):
    """Whose things are asked for."""

    owned = "owned"
    accessible = "accessible"


ScopeOption = Annotated[
    Scope | None, typer.Option(help="`accessible` for what others share, too; by default owned.")
]


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """What was fetched.

    Attributes:
        items: In the service's order.
        total: How many there are; None if the service does not say.
    """

    items: list[T]
    total: int | None

    def title(self, noun: str) -> str:
        """Say how many there are, and how many are not shown."""
        hidden = (self.total or 0) - len(self.items)
        more = f" ({hidden} more not shown: --limit 0 shows all)" if hidden > 0 else ""
        return f"{count(len(self.items), noun)}{more}"


def fetch(
    terminal: Terminal,
    page: Callable[[int, int], tuple[list[T], int | None]],
    *,
    noun: str,
    limit: int,
    page_size: int,
) -> Listed[T]:
    """Fetch pages until the limit, or the end, is reached.

    Args:
        terminal: Shows the progress.
        page: Fetches one: (limit, offset) to its items and the total, None if unknown.
        noun: What is fetched.
        limit: At most so many; 0 for all.
        page_size: At most so many at once.
    """
    items: list[T] = []
    total: int | None = None

    def goes_on() -> bool:
        """Fetch a page, and tell whether there is more to fetch."""
        nonlocal total
        wanted = min(page_size, limit - len(items)) if limit else page_size
        got, total = page(wanted, len(items))
        items.extend(got)
        is_last = len(got) < wanted if total is None else len(items) >= total
        return not (is_last or not got or len(items) == limit)

    if goes_on():
        with terminal.progress(f"Fetching {noun}s") as progress:
            while goes_on():
                progress(len(items), limit or total)
    return Listed(items, total)

"""A row of the compatibility table, and a section of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A name of upstream's, and what is here for it.

    Attributes:
        name: As upstream has it.
        releases: That have it.
        here: How it is here; empty if it is not.
        words: One of which a test mentions that tests it; the first are the better ones.
        note: What differs on purpose.
        tests: Files of tests, below ``tests/``.
    """

    name: str
    releases: tuple[str, ...]
    here: str
    words: tuple[str, ...]
    note: str = ""
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of a kind.

    Attributes:
        title: Of the section.
        words: Before the table.
        rows: In the table's order.
        near: Folders and files of tests that are looked at first, below ``tests/``.
        always: Files of tests that hold all rows at once.
        about: What a test far from these places has to mention, too.
    """

    title: str
    words: str
    rows: Sequence[Row]
    near: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    about: str = ""

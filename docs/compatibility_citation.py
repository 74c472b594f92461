"""Which tests a row of the compatibility table cites.

What is cited stays cited as long as the file is there and mentions the name, so that the page
changes only where something has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

from docs.compatibility_row import Row, Section

TESTS = Path(__file__).parents[1] / "tests"
MOST = 2
"""Files that a row cites beside those that hold the whole section."""
NEAR = 20
"""What a mention in a test of the section's own counts, against one elsewhere."""
_FOLDERS = ("unit", "contract", "e2e")
_TITLE = re.compile(r"^## (.+)$")
_ROW = re.compile(r"^\| `([^`]+)` \|[^|]*\|[^|]*\|[^|]*\|([^|]*)\|")
_LINK = re.compile(r"\]\(\.\./tests/([^)]+)\)")

Cited: TypeAlias = Mapping[tuple[str, str], tuple[str, ...]]


def parse(page: str) -> Cited:
    """Read the tests that a page cites, by section and name."""
    cited: dict[tuple[str, str], tuple[str, ...]] = {}
    title = ""
    for line in page.splitlines():
        if found := _TITLE.match(line):
            title = found.group(1)
        elif found := _ROW.match(line):
            cited[title, found.group(1)] = tuple(_LINK.findall(found.group(2)))
    return cited


def link(test: str) -> str:
    """Write a link to a test."""
    return f"[{Path(test).stem.removeprefix('test_')}](../tests/{test})"


def cite(section: Section, row: Row, cited: Cited) -> Row:
    """Give a row its tests."""
    always = [test for test in section.always if _mentions(_with_records(test), row.words)]
    old = cited.get((section.title, row.name), ())
    kept = [
        test for test in old if test not in section.always and _mentions(_text(test), row.words)
    ]
    # A row that cites what it cited stays; one that lost a test, or is new, looks for others.
    lost = [test for test in old if test not in {*kept, *always}]
    chosen = kept if old and not lost else (kept[:MOST] or _best(section, row))
    return replace(row, tests=tuple(dict.fromkeys([*chosen, *always])))


def _best(section: Section, row: Row) -> list[str]:
    """Choose the tests that mention a row most, near ones first."""
    for word in row.words:
        counts = {
            test: _count(_text(test), word) * (NEAR if _is_near(test, section.near) else 1)
            for test in _all_tests()
            if test not in section.always and _is_about(test, section)
        }
        ranked = sorted((test for test in counts if counts[test]), key=lambda t: (-counts[t], t))
        if ranked:
            return ranked[:MOST]
    return []


def _is_near(test: str, near: tuple[str, ...]) -> bool:
    return any(test.startswith(place) for place in near)


def _is_about(test: str, section: Section) -> bool:
    return _is_near(test, section.near) or _count(_text(test), section.about) > 0


def _mentions(text: str, words: tuple[str, ...]) -> bool:
    return any(_count(text, word) for word in words)


def _count(text: str, word: str) -> int:
    if word not in text:
        return 0
    return len(re.findall(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)) if word else 1


@cache
def _all_tests() -> tuple[str, ...]:
    found = [path for folder in _FOLDERS for path in (TESTS / folder).rglob("test_*.py")]
    return tuple(sorted(str(path.relative_to(TESTS)) for path in found))


@cache
def _text(test: str) -> str:
    path = TESTS / test
    return path.read_text(encoding="utf-8") if path.exists() else ""


@cache
def _with_records(test: str) -> str:
    """The text of a test, and of the records of upstream that it compares with."""
    records = sorted(set(re.findall(r"\bupstream_\w+\.json", _text(test))))
    golden = TESTS / "contract" / "golden"
    return "\n".join([_text(test), *((golden / record).read_text() for record in records)])

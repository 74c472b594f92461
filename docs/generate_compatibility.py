"""Write ``docs/compatibility.md``: what upstream has, in which release, and what is here for it.

``python -m docs.generate_compatibility`` in the repository's folder writes the page; ``--check``
fails if it is not what would be written. Names come from what was recorded of upstream's releases
(``tests/contract/golden``), "here" from this package as scripts under ``tinker_ray.install()`` see
it, endpoints from ``wire/endpoint.py`` and the engine's routes. Tests that a row cites stay as long
as they mention its name; others are found among the tests.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from docs import compatibility_citation, compatibility_source
from docs.compatibility_facts import BOTH
from docs.compatibility_row import Row, Section

PAGE = Path(__file__).with_name("compatibility.md")
HEADER = """# Compatibility with the Tinker SDK

What the upstream SDK has in its two generations, and what is here for it: {total} names and
endpoints, {missing} of them missing. **S** is release {seed}, **N** is release {current}; ✓ marks
what a release has. *Here* says how this package answers for a name: ✓ under the same name,
otherwise in words. *Tests* are files that mention the name. The last column says what differs on
purpose.

This page is written by `make docs` from what was recorded of upstream's releases, and a test holds
that it is up to date. `import tinker_ray as tinker` and `tinker_ray.install()` give the names;
calls in the form of either generation are taken by both.
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The page, and what is wrong with it.

    Attributes:
        text: Markdown.
        without_reason: Rows that are missing here and do not say why.
        without_test: Rows that are here and that no test mentions.
    """

    text: str
    without_reason: list[str]
    without_test: list[str]


def write_page(written: str) -> Page:
    """Write the page anew, keeping the tests that the present one cites as long as they fit."""
    cited = compatibility_citation.parse(written)
    sections = [
        Section(
            section.title,
            section.words,
            [compatibility_citation.cite(section, row, cited) for row in section.rows],
        )
        for section in compatibility_source.sections()
    ]
    rows = [(section, row) for section in sections for row in section.rows]
    seed, current = BOTH
    header = HEADER.format(
        total=len(rows),
        missing=sum(not row.here for _section, row in rows),
        seed=seed,
        current=current,
    )
    return Page(
        "\n".join([header, *(render(section) for section in sections)]),
        [f"{s.title}: {row.name}" for s, row in rows if not row.here and not row.note],
        [f"{s.title}: {row.name}" for s, row in rows if row.here and not row.tests],
    )


def render(section: Section) -> str:
    """Write a section: its words, and its table."""
    lines = [
        f"## {section.title}",
        "",
        section.words,
        "",
        "| name | S | N | here | tests | differences |",
        "|---|:-:|:-:|---|---|---|",
    ]
    lines += [_line(row) for row in section.rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    marks = ["✓" if release in row.releases else "" for release in BOTH]
    tests = " ".join(compatibility_citation.link(test) for test in row.tests)
    cells = [f"`{row.name}`", *marks, row.here or "–", tests, row.note]
    return "| " + " | ".join(re.sub(r"\s*\|\s*", " or ", cell) for cell in cells) + " |"


def main() -> int:
    """Write the page, or check it."""
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    page = write_page(written)
    problems = [f"missing here without a reason: {row}" for row in page.without_reason]
    problems += [f"mentioned by no test: {row}" for row in page.without_test]
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page.text, encoding="utf-8")
    elif page.text != written:
        problems.append("docs/compatibility.md is out of date: run `make docs`")
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

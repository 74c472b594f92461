"""``docs/compatibility.md`` is what ``make docs`` would write, and its citations hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from docs import compatibility_citation
from docs.compatibility_row import Row, Section

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "compatibility.md").read_text(encoding="utf-8")
HERE = "contract/test_compatibility.py"
ELSEWHERE = "contract/test_golden_bytes.py"


def cited(row: Row, *old: str) -> tuple[str, ...]:
    """What a row cites of which the page cited other tests before."""
    section = Section("Things", "", [row], near=("contract/test_comp",))
    return compatibility_citation.cite(section, row, {("Things", row.name): old}).tests


def test_the_page_is_up_to_date() -> None:
    # In a process of its own: it looks names up as scripts do, under install().
    command = [sys.executable, "-m", "docs.generate_compatibility", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_every_file_that_the_page_links_to_is_there() -> None:
    links = set(re.findall(r"\]\(\.\./([^)]+)\)", PAGE))
    assert links
    assert set() == {link for link in links if not (REPOSITORY / link).is_file()}


def test_a_row_cites_the_tests_that_mention_it() -> None:
    assert (HERE,) == cited(Row("a", (), "", ("so_rare_a_word",)))
    assert () == cited(Row("a", (), "", ("no_such_" + "word",)))


def test_a_citation_stays_as_long_as_it_mentions_the_name() -> None:
    row = Row("a", (), "", ("test_golden_bytes", "so_rare_a_word"))
    assert (HERE,) == cited(row, HERE)
    assert HERE in cited(row, ELSEWHERE)
    assert ELSEWHERE not in cited(row, ELSEWHERE)
    assert "gone.py" not in cited(row, "gone.py")


def test_what_a_page_cites_is_read_back() -> None:
    key = ("Commands", "tinker checkpoint push-hf")
    assert "unit/cli/test_hub.py" in compatibility_citation.parse(PAGE)[key]

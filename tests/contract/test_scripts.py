"""Scripts as users of upstream write them: the same results by the real SDK and by install().

Each script runs unmodified with the wheel of its generation, and with this package in its place,
against one served engine; what they print has to agree.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.served import Served
from tests.fakes.upstream import upstream_python
from tests.fakes.upstream_script import INSTALLED, SCRIPTS, assert_alike, started

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATIONS = (
    ("sft_sync", "0.6.3"),
    ("sampling_sync", "0.6.3"),
    ("rest_sync", "0.6.3"),
    ("dpo_custom", "0.6.3"),
    ("dpo_custom", "0.38.0"),
    ("rl_async", "0.38.0"),
    ("rest_async", "0.38.0"),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served("--data", str(tmp_path_factory.mktemp("data"))) as served:
        yield served


@pytest.mark.timeout(300)  # the first of a release makes its environment
@pytest.mark.parametrize("script, version", GENERATIONS)
def test_a_script_gives_the_same_with_upstream_and_with_us(
    engine: Served, script: str, version: str
) -> None:
    path = str(SCRIPTS / f"{script}.py")
    python = str(upstream_python(version))
    with (
        started(engine.url, python, "-W", "ignore", path) as upstream,
        started(engine.url, sys.executable, "-c", INSTALLED, path) as ours,
    ):
        assert_alike(upstream.result(), ours.result())


def test_every_script_is_run() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {script for script, _ in GENERATIONS}

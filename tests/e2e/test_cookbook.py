"""The Tinker cookbook's environments and builders, unchanged, under ``install()``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import cookbook_python
from tests.fakes.upstream_script import INSTALLED, SCRIPTS, started
from tinker_ray.engine import tiny_adder

REPOSITORY = Path(__file__).parents[2]
GROUPS = str(SCRIPTS / "cookbook" / "groups.py")


def turns(groups: list[dict[str, Any]]) -> list[list[int]]:
    return [[len(episode["turns"]) for episode in group["episodes"]] for group in groups]


@pytest.mark.timeout(300)
def test_groups_of_the_cookbook_run_in_a_pool_as_they_do_in_its_own_loop(
    embedded_engine: str,
) -> None:
    python, folder = str(cookbook_python()), str(tiny_adder.directory())
    script = (python, "-c", INSTALLED, GROUPS, folder)
    # The cookbook has an interpreter of its own, in which this package is not installed.
    with started(embedded_engine, *script, PYTHONPATH=str(REPOSITORY)) as running:
        results = running.result()

    guessing = results["guessing"]
    assert guessing["cookbook"] == guessing["here"] == guessing["pool"]
    assert [[8, 8], [9, 9]] == turns(guessing["pool"])
    assert [[0.0, 0.0], [0.0, 0.0]] == [group["rewards"] for group in guessing["pool"]]

    greedy = results["greedy"]
    assert greedy["cookbook"] == greedy["pool"] == greedy["executor"]
    drawn = results["drawn"]
    assert drawn["here"] == drawn["pool"]
    assert [[1, 1, 1, 1], [1, 1, 1, 1], [3, 3, 3, 3]] == turns(drawn["pool"][:3])
    quiz, limited = drawn["pool"][2:]
    assert ["completed"] * 4 == [episode["stop_reason"] for episode in quiz["episodes"]]
    assert [{"envs": 4}] * 4 == quiz["metrics"]
    assert ["max_tokens"] * 4 == [episode["stop_reason"] for episode in limited["episodes"]]
    assert 4 == len({str(episode["turns"]) for episode in quiz["episodes"]})

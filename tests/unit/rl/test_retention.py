from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.errors import APIConnectionError
from tinker_ray.rl.retention import KeepRule, Retention, Saved, saved_by, superfluous

SCORES = st.none() | st.floats(0, 1) | st.just(math.nan)


def paths(saved: list[Saved]) -> list[str]:
    return [checkpoint.path for checkpoint in saved]


def run(*scores: float | None) -> list[Saved]:
    return [Saved(f"c{place}", score) for place, score in enumerate(scores)]


def test_the_last_ones_and_the_best_one_are_kept() -> None:
    saved = run(0.1, 0.9, 0.3, 0.2, 0.4)
    assert ["c0", "c2"] == paths(superfluous(saved, KeepRule(last=2)))


def test_of_equal_scores_the_older_one_is_the_best() -> None:
    assert ["c1"] == paths(superfluous(run(0.5, 0.5, 0.5), KeepRule(last=1)))


def test_what_was_not_measured_is_never_the_best() -> None:
    assert ["c0", "c1"] == paths(superfluous(run(None, math.nan, 0.1, None), KeepRule(last=1)))


def test_all_are_kept_without_a_count() -> None:
    assert [] == superfluous(run(0.1, 0.2, 0.3), KeepRule())


@given(
    scores=st.lists(SCORES, max_size=12),
    last=st.integers(1, 5),
    best=st.integers(0, 3),
    used=st.sets(st.integers(0, 11)),
)
def test_the_newest_and_what_is_in_use_never_go(
    scores: list[float | None], last: int, best: int, used: set[int]
) -> None:
    saved = run(*scores)
    in_use = {f"c{place}" for place in used}
    gone = superfluous(saved, KeepRule(last, best), in_use)
    kept = [checkpoint for checkpoint in saved if checkpoint not in gone]
    assert kept[-last:] == saved[-last:] or len(saved) <= last
    assert in_use.isdisjoint(paths(gone))
    assert len(kept) <= last + best + len(in_use)
    measured = [s.score for s in saved if s.score is not None and not math.isnan(s.score)]
    if best and measured:
        assert max(measured) in [checkpoint.score for checkpoint in kept]


@pytest.mark.parametrize("last,best", [(0, 1), (1, -1)])
def test_a_rule_that_keeps_too_little_is_refused(last: int, best: int) -> None:
    with pytest.raises(ValueError, match=r"is 0|is -1"):
        KeepRule(last, best)


@dataclass
class Store:
    used: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    fails: bool = False

    async def in_use(self) -> Collection[str]:
        return self.used

    async def delete(self, path: str) -> None:
        if self.fails:
            raise APIConnectionError("no route")
        self.deleted.append(path)


async def test_a_new_checkpoint_makes_an_old_one_go() -> None:
    store = Store(used={"b"})
    retention = Retention(KeepRule(last=1, best=0), store, [Saved("a")])
    for path in ("b", "c", "d"):
        await retention.add(path)
    assert ["a", "c"] == store.deleted
    assert ["b", "d"] == retention.kept
    store.used.clear()
    await retention.add("e")
    assert ["a", "c", "b", "d"] == store.deleted


async def test_a_checkpoint_that_is_still_to_be_judged_stays_until_it_is() -> None:
    store = Store()
    retention = Retention(KeepRule(last=1), store)
    await retention.add("a", 0.5)
    await retention.add("b", is_judged=False)
    for path in ("c", "d"):
        await retention.add(path)
    assert (["c"], ["a", "b", "d"]) == (store.deleted, retention.kept)
    await retention.judge("b", 0.9)
    assert (["c", "a"], ["b", "d"]) == (store.deleted, retention.kept)


async def test_a_checkpoint_of_an_earlier_part_of_the_run_can_be_held() -> None:
    store = Store()
    retention = Retention(KeepRule(last=1), store, [Saved("a")])
    retention.hold("a")
    await retention.add("b")
    assert [] == store.deleted
    await retention.judge("a", None)
    assert ["a"] == store.deleted


async def test_a_deletion_that_fails_is_told_once_and_done_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(fails=True)
    retention = Retention(KeepRule(last=1), store)
    with caplog.at_level(logging.WARNING):
        for path in ("a", "b", "c"):
            await retention.add(path)
    assert 1 == len(caplog.records)
    store.fails = False
    await retention.add("d")
    assert ["a", "b", "c"] == store.deleted


def test_what_earlier_parts_of_a_run_made_is_judged_by_what_they_measured() -> None:
    checkpoints = [{"steps_done": step, "path": f"c{step}"} for step in (1, 2, 3)]
    rows: list[dict[str, Any]] = [
        {"step": 1, "eval_loss": 0.5},
        {"step": 2},
        {"step": 3, "eval_loss": None},
    ]
    assert [Saved("c1", -0.5), Saved("c2"), Saved("c3")] == saved_by(
        checkpoints, rows, lambda row: -row["eval_loss"]
    )

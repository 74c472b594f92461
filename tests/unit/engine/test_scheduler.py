from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.sampling.scheduler import Scheduler, lay_out
from tinker_ray.engine.sampling.sequence import Job, SampleJob, Sequence, StopRule
from tinker_ray.types import SamplingParams


def make_job(*, prompt: int = 4, samples: int = 1, limit: int = 8) -> Job:
    request = SampleJob(np.zeros(prompt, np.int64), None, SamplingParams(), samples)
    job = Job(request, Future(), StopRule(()), limit)
    job.sequences = [Sequence(job, np.zeros(limit)) for _ in range(samples)]
    return job


def start(scheduler: Scheduler, *jobs: Job) -> None:
    scheduler.waiting.extend(jobs)
    for job in scheduler.admit(10_000):
        scheduler.ready.extend(job.sequences)
    scheduler.arrange([])


def test_the_last_row_takes_the_place_of_one_that_ends() -> None:
    assert [0, 4, 2, 3] == lay_out({0: "a", 2: "a", 3: "a", 4: "a"}, [])


def test_a_newcomer_takes_a_vacant_row() -> None:
    assert [0, -1, 2] == lay_out({0: "a", 2: "a"}, ["a"])


def test_groups_stay_together_when_one_shrinks() -> None:
    assert [0, 3, 2] == lay_out({0: "a", 2: "b", 3: "b"}, [])


def test_groups_stay_together_when_one_grows() -> None:
    assert [0, 1, -1, 3, 4, 2, -2] == lay_out({0: "a", 1: "a", 2: "b", 3: "b", 4: "b"}, ["a", "b"])


@given(st.data())
def test_a_layout_is_compact_grouped_and_complete(data: st.DataObject) -> None:
    groups = st.sampled_from("abc")
    table = data.draw(st.lists(groups, max_size=20))
    kept_rows = data.draw(st.sets(st.sampled_from(range(len(table)))) if table else st.just(set()))
    kept = {row: table[row] for row in sorted(kept_rows)}
    joining = data.draw(st.lists(groups, max_size=10))
    order = lay_out(dict(kept), list(joining))
    newcomers = [-1 - index for index in range(len(joining))]
    assert sorted([*kept, *newcomers]) == sorted(order)
    names = [kept[row] if row >= 0 else joining[-1 - row] for row in order]
    changes = sum(before != after for before, after in pairwise(names))
    assert changes == max(0, len(set(names)) - 1)


@given(st.sets(st.integers(0, 30), max_size=31))
def test_with_one_group_only_rows_beyond_the_end_move(rows: set[int]) -> None:
    order = lay_out(dict.fromkeys(sorted(rows), "a"), [])
    for row, source in enumerate(order):
        assert source == row or source >= len(order)


def test_requests_start_in_order_while_there_are_rows() -> None:
    scheduler = Scheduler(max_rows=3, max_slots=10_000)
    first, second, third = make_job(samples=2), make_job(samples=4), make_job()
    scheduler.waiting.extend([first, second, third])
    assert [first, second] == scheduler.admit(10_000)
    assert [third] == list(scheduler.waiting)


def test_ready_sequences_enter_before_waiting_requests() -> None:
    scheduler = Scheduler(max_rows=2, max_slots=10_000)
    first, second = make_job(samples=3), make_job()
    start(scheduler, first, second)
    assert first.sequences[:2] == scheduler.rows
    assert [] == scheduler.admit(10_000)
    scheduler.arrange(first.sequences[:1])
    assert [first.sequences[2], first.sequences[1]] == scheduler.rows
    assert [second] == list(scheduler.waiting)


def test_prompts_of_a_batch_stay_within_the_budget_but_for_a_single_one() -> None:
    scheduler = Scheduler(max_rows=100, max_slots=10_000)
    long, short, other = make_job(prompt=50), make_job(prompt=8), make_job(prompt=8)
    scheduler.waiting.extend([long, short, other])
    assert [long] == scheduler.admit(20)
    assert [short, other] == scheduler.admit(20)


def test_memory_bounds_rows_times_the_longest() -> None:
    scheduler = Scheduler(max_rows=100, max_slots=48)
    start(scheduler, *(make_job(prompt=4, limit=8) for _ in range(6)))
    assert 4 == len(scheduler.rows)


def test_a_request_larger_than_the_memory_runs_alone() -> None:
    scheduler = Scheduler(max_rows=100, max_slots=10)
    big, small = make_job(prompt=50), make_job(prompt=1, limit=2)
    start(scheduler, big, small)
    assert big.sequences == scheduler.rows
    scheduler.arrange(big.sequences)
    start(scheduler)
    assert small.sequences == scheduler.rows


def test_a_request_of_one_token_needs_no_row() -> None:
    scheduler = Scheduler(max_rows=1, max_slots=100)
    start(scheduler, make_job())
    single = make_job(limit=1)
    scheduler.waiting.append(single)
    assert [single] == scheduler.admit(100)


def test_discarded_requests_leave_the_queues() -> None:
    scheduler = Scheduler(max_rows=1, max_slots=100)
    running, waiting = make_job(samples=2), make_job()
    start(scheduler, running, waiting)
    scheduler.discard([running, waiting])
    scheduler.arrange(running.sequences)
    assert scheduler.is_idle
    assert "Scheduler(waiting=0 ready=0 rows=0)" == repr(scheduler)


@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_no_sequence_is_lost_or_placed_twice(max_rows: int) -> None:
    rng = np.random.default_rng(max_rows)
    scheduler = Scheduler(max_rows=max_rows, max_slots=200)
    jobs = [make_job(samples=int(rng.integers(1, 5)), limit=9) for _ in range(12)]
    scheduler.waiting.extend(jobs)
    ended: list[Sequence] = []
    while not scheduler.is_idle:
        for job in scheduler.admit(40):
            scheduler.ready.extend(job.sequences)
        scheduler.arrange([])
        assert 0 < len(scheduler.rows) <= max_rows
        leaving = [row for row in scheduler.rows if rng.random() < 0.5]
        ended.extend(leaving)
        scheduler.arrange(leaving)
    expected = {id(sequence) for job in jobs for sequence in job.sequences}
    assert len(expected) == len(ended)
    assert expected == {id(sequence) for sequence in ended}

"""The window: what 429s teach, when it is tried higher, and a service whose capacity changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.limits import Window


def test_there_is_no_limit_before_the_first_rejection() -> None:
    window = Window(2000)
    assert window.limit(0.0, full=True) == window.limit(100.0, full=True) == 2000
    assert not window.is_known


def test_the_first_rejection_tells_what_the_service_holds() -> None:
    window = Window(2000)
    assert window.on_rejected(5.0, at_work=200)
    assert window.limit(5.0, full=True) == window.limit(14.9, full=True) == 200


def test_rejections_of_one_moment_are_one_event() -> None:
    window = Window(2000)
    window.on_rejected(5.0, at_work=200)
    assert not window.on_rejected(5.9, at_work=12)
    assert window.limit(6.0, full=True) == 200


def test_a_limit_that_holds_is_tried_higher_while_it_is_reached() -> None:
    window = Window(2000, hold_s=10.0)
    window.on_rejected(0.0, at_work=200)
    assert window.limit(12.0, full=False) == 200
    assert window.limit(14.0, full=True) == 204
    assert window.limit(15.0, full=True) == 206


def test_a_try_that_fails_is_taken_back_and_the_next_comes_later() -> None:
    window = Window(2000, hold_s=10.0)
    window.on_rejected(0.0, at_work=200)
    assert window.limit(11.0, full=True) == 202
    assert window.on_rejected(11.1, at_work=201)
    assert window.limit(11.1, full=True) == 200
    assert window.limit(31.0, full=True) == 200
    assert window.limit(32.1, full=True) == 202


def test_a_limit_that_was_proven_and_fails_is_lowered() -> None:
    window = Window(2000)
    window.on_rejected(0.0, at_work=200)
    window.on_rejected(5.0, at_work=100)
    assert window.limit(5.0, full=True) == 98
    window.on_rejected(10.0, at_work=90)
    assert window.limit(10.0, full=True) == 81


def test_growth_that_goes_well_becomes_faster() -> None:
    window = Window(2000, hold_s=10.0)
    window.on_rejected(0.0, at_work=100)
    limits = [window.limit(float(second), full=True) for second in range(61)]
    assert (limits[10], limits[20], limits[30], limits[60]) == (100, 110, 134, 929)


def test_what_is_at_work_after_all_raises_the_limit() -> None:
    window = Window(2000)
    window.on_rejected(0.0, at_work=100)
    window.raise_to(50)
    assert window.limit(0.0, full=True) == 100
    window.raise_to(200)
    assert window.limit(0.0, full=True) == 200


def test_what_another_has_learnt_is_taken_over() -> None:
    window = Window(2000)
    window.restore(150, 0.0)
    assert window.is_known
    assert window.limit(9.0, full=True) == 150
    assert window.limit(11.0, full=True) == 151


def test_it_is_shown() -> None:
    assert repr(Window(10)) == "Window(none yet of 10, held for 10 s)"


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3000), st.booleans()), max_size=40))
def test_it_stays_within_bounds_and_falls_only_when_rejected(
    events: list[tuple[float, int, bool]],
) -> None:
    window, now, before = Window(2000), 0.0, 2000
    for wait_s, at_work, rejected in events:
        now += wait_s
        if rejected:
            window.on_rejected(now, at_work)
        limit = window.limit(now, full=at_work % 2 == 0)
        assert 1 <= limit <= 2000
        assert rejected or limit >= before
        before = limit


@pytest.mark.parametrize("capacity", [1, 7, 200, 1500])
def test_a_service_of_any_capacity_is_used_well_with_few_rejections(capacity: int) -> None:
    window, at_work, used, rejections = Window(2000), 0, 0.0, 0
    for second in range(600):  # samples take a second; a rejection costs one
        wanted = window.limit(float(second), full=True)
        at_work = min(wanted, capacity)
        if wanted > capacity:
            rejections += 1
            window.on_rejected(float(second), at_work)
            at_work = 0
        used += at_work
    assert used / (600 * capacity) > 0.9
    assert rejections < 30

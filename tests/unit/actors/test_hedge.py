"""When a sample is asked for a second time."""

from __future__ import annotations

from actors.hedge import ENOUGH, Hedge


def test_what_has_taken_longer_than_the_time_is_named_once() -> None:
    hedge: Hedge[str] = Hedge(2.0)
    hedge.sent("a", 0.0)
    hedge.sent("b", 1.0)
    assert 2.0 == hedge.wake_at()
    assert [] == hedge.due(1.9)
    assert ["a"] == hedge.due(2.5)
    assert 3.0 == hedge.wake_at()
    assert ["b"] == hedge.due(9.0)
    assert [] == hedge.due(10.0)
    assert hedge.wake_at() is None


def test_a_service_that_is_slow_as_a_whole_is_not_asked_twice_for_everything() -> None:
    hedge: Hedge[str] = Hedge(2.0)
    for duration in range(1, 101):
        hedge.answered(float(duration))
    hedge.sent("a", 0.0)
    assert 96.0 == hedge.wake_at()
    assert ([], ["a"]) == (hedge.due(95.0), hedge.due(96.0))


def test_a_few_durations_say_nothing_and_quick_ones_do_not_shorten_the_time() -> None:
    hedge: Hedge[str] = Hedge(2.0)
    for _ in range(ENOUGH - 1):
        hedge.answered(50.0)
    assert 2.0 == hedge.delay_s()
    quick: Hedge[str] = Hedge(2.0)
    for _ in range(100):
        quick.answered(0.1)
    assert 2.0 == quick.delay_s()

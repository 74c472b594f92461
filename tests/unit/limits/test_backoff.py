"""Backoff: pauses, the throttled phase, and what processes tell each other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tinker_ray.limits import Backoff, BackoffNotice, Open, Paused, Throttled
from tinker_ray.limits.backoff import SLACK_S


def _backoff(jitter: float = 0.0, seed: int = 0) -> Backoff:
    return Backoff(random.Random(seed).random, jitter=jitter)


def _paused_until(backoff: Backoff, now: float) -> float:
    state = backoff.state(now)
    assert isinstance(state, Paused)
    return state.until


def test_it_starts_open() -> None:
    assert _backoff().state(0.0) == Open()
    assert _backoff().budget_bytes(0.0, 7) == 7


@pytest.mark.parametrize(
    "est_bytes, retry_after_s, pause_s",
    [
        (1_000, None, 1.0),
        (131_072, None, 1.0),
        (131_073, None, 5.0),
        (1_000, 0.2, 1.0),
        (1_000, 3.0, 3.0),
        (131_073, 3.0, 5.0),
        (1_000, 1e9, 300.0),
    ],
)
def test_a_rejection_pauses_for_the_longest_of_what_was_asked(
    est_bytes: int, retry_after_s: float | None, pause_s: float
) -> None:
    backoff = _backoff()

    assert backoff.on_rejected(10.0, est_bytes, retry_after_s)

    assert _paused_until(backoff, 10.0) == pytest.approx(10 + pause_s + SLACK_S)


def test_after_the_pause_few_are_let_through_until_ten_quiet_seconds_have_passed() -> None:
    backoff = _backoff()
    backoff.on_rejected(0.0, 1)
    resume_at = _paused_until(backoff, 0.0)

    assert isinstance(backoff.state(resume_at), Throttled)
    assert backoff.state(resume_at + 9.9) == Throttled(10, resume_at + 10)
    assert backoff.state(resume_at + 10.1) == Open()


def test_another_rejection_pauses_again_and_starts_the_quiet_time_anew() -> None:
    backoff = _backoff()
    backoff.on_rejected(0.0, 1)

    assert backoff.on_rejected(9.0, 1)

    assert isinstance(backoff.state(9.5), Paused)
    assert isinstance(backoff.state(19.0), Throttled)
    assert backoff.state(21.0) == Open()


def test_a_burst_of_rejections_is_told_once() -> None:
    backoff = _backoff()

    told = [backoff.on_rejected(index * 0.0005, 1) for index in range(100)]

    assert told == [True] + [False] * 99
    assert _paused_until(backoff, 0.0495) >= 0.0495 + 1


def test_prompts_weigh_more_in_the_budget_until_it_is_open_again() -> None:
    backoff = _backoff()
    backoff.on_rejected(0.0, 1)

    assert backoff.budget_bytes(0.5, 7) == 140
    assert backoff.budget_bytes(5.0, 7) == 140
    assert backoff.budget_bytes(12.0, 7) == 7


def test_processes_resume_at_different_moments_and_never_early() -> None:
    ends = []
    for seed in range(20):
        backoff = _backoff(jitter=0.25, seed=seed)
        backoff.merge(BackoffNotice(4.0), 0.0)
        ends.append(_paused_until(backoff, 0.0))

    assert min(ends) >= 4.0
    assert max(ends) <= 5.0
    assert len(set(ends)) == 20


def test_jitter_does_not_travel_and_add_up() -> None:
    first, second = _backoff(jitter=0.25, seed=1), _backoff(jitter=0.25, seed=2)
    first.on_rejected(0.0, 1)
    for _ in range(50):
        second.merge(first.notice(0.0), 0.0)
        first.merge(second.notice(0.0), 0.0)

    assert first.notice(0.0) == BackoffNotice(1 + SLACK_S)
    assert _paused_until(second, 0.0) <= 1.25 * (1 + SLACK_S)


def test_clocks_of_different_processes_are_not_compared() -> None:
    here, there = _backoff(), _backoff()
    here.on_rejected(1_000_000.0, 1)

    assert there.merge(here.notice(1_000_000.4), 3.0)

    assert _paused_until(there, 3.0) == pytest.approx(3 + 0.6 + SLACK_S)


def test_a_process_that_comes_later_learns_that_the_width_is_limited() -> None:
    here, newcomer = _backoff(), _backoff()
    here.on_rejected(0.0, 1)

    newcomer.merge(here.notice(6.0), 100.0)

    assert isinstance(newcomer.state(100.0), Throttled)
    assert newcomer.state(106.0) == Open()


def test_a_notice_without_news_changes_nothing() -> None:
    backoff = _backoff()

    assert not backoff.merge(_backoff().notice(5.0), 5.0)
    assert backoff.state(5.0) == Open()
    backoff.on_rejected(5.0, 1)
    assert not backoff.merge(backoff.notice(5.0), 5.01)


def test_acceptances_do_not_end_the_throttled_phase() -> None:
    backoff = _backoff()
    backoff.on_rejected(0.0, 1)

    for index in range(100):
        backoff.on_accepted(2.0 + index / 100)

    assert isinstance(backoff.state(3.0), Throttled)
    assert "1 rejected, 100 accepted since" in repr(backoff)


@given(
    now=st.floats(0, 100),
    est_bytes=st.integers(0, 10**6),
    delay_s=st.floats(0, 2),
    seed=st.integers(),
)
def test_whoever_hears_of_a_rejection_pauses_at_least_until_its_end(
    now: float, est_bytes: int, delay_s: float, seed: int
) -> None:
    here, there = _backoff(0.25, seed), _backoff(0.25, seed + 1)
    here.on_rejected(now, est_bytes)
    pause_s = 1.0 if est_bytes <= 131_072 else 5.0

    there.merge(here.notice(now), now + delay_s)

    assert _paused_until(here, now) >= now + pause_s
    assert _paused_until(there, now + delay_s) >= now + delay_s + pause_s


class SharedBackoffMachine(RuleBasedStateMachine):
    """Three processes tell a fourth of their rejections, and it tells the others, when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.center = _backoff(0.25, 99)
        self.edges = [_backoff(0.25, seed) for seed in range(3)]
        self.pause_until = -1.0
        self.resume_at = [-1.0] * 3

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(edge=st.integers(0, 2), est_bytes=st.sampled_from([10, 200_000]))
    def reject(self, edge: int, est_bytes: int) -> None:
        self.pause_until = max(self.pause_until, self.now + (1 if est_bytes == 10 else 5))
        if self.edges[edge].on_rejected(self.now, est_bytes):
            notice = self.edges[edge].notice(self.now)
            if self.center.merge(notice, self.now):
                for other in self.edges:
                    other.merge(self.center.notice(self.now), self.now)

    @rule(edge=st.integers(0, 2))
    def accept(self, edge: int) -> None:
        self.edges[edge].on_accepted(self.now)

    @invariant()
    def nobody_dispatches_during_the_pause(self) -> None:
        for edge in self.edges:
            assert isinstance(edge.state(self.now), Paused) or self.now >= self.pause_until

    @invariant()
    def nobody_dispatches_freely_in_the_quiet_time(self) -> None:
        for edge in self.edges:
            assert not isinstance(edge.state(self.now), Open) or (
                self.pause_until < 0 or self.now >= self.pause_until + 10
            )

    @invariant()
    def nobody_pauses_much_longer_than_asked(self) -> None:
        for edge in self.edges:
            state = edge.state(self.now)
            assert not isinstance(state, Paused) or state.until <= self.pause_until + 2

    @invariant()
    def no_pause_gets_shorter(self) -> None:
        for index, edge in enumerate(self.edges):
            state = edge.state(self.now)
            resume_at = state.until if isinstance(state, Paused) else -1.0
            assert resume_at >= self.resume_at[index] or self.now >= self.resume_at[index]
            self.resume_at[index] = resume_at


TestSharedBackoffMachine = SharedBackoffMachine.TestCase
TestSharedBackoffMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)

"""Turns at what cannot be divided evenly."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.limits.turn import GRACE_S, Turns

NAMES = ["a", "b", "c", "d", "e"]


def _at_it(turns: Turns) -> list[str]:
    return [name for name in NAMES if turns.end(name) is not None]


def test_the_first_have_a_turn_and_the_others_wait() -> None:
    turns = Turns()
    turns.arrange(NAMES, 2, 0.0, 8.0)
    assert _at_it(turns) == ["a", "b"]
    assert (turns.end("a"), turns.insist_at) == (8.0, 8.0 + GRACE_S)
    assert repr(turns) == "Turns(2 at it, 3 waiting)"


def test_a_turn_is_passed_on_to_the_next_and_comes_round() -> None:
    turns = Turns()
    turns.arrange(["a", "b", "c"], 1, 0.0, 2.0)
    order = [turns.pass_on(name, 2.0, 2.0, back=True) for name in "abcabc"]
    assert order == ["b", "c", "a", "b", "c", "a"]


def test_who_wants_no_more_leaves_the_line() -> None:
    turns = Turns()
    turns.arrange(["a", "b"], 1, 0.0, 2.0)
    assert turns.pass_on("a", 1.0, 2.0, back=False) == "b"
    assert turns.pass_on("b", 3.0, 2.0, back=False) == ""


def test_a_turn_that_is_not_passed_on_is_taken_if_others_wait() -> None:
    turns = Turns()
    turns.arrange(["a", "b"], 1, 0.0, 2.0)
    turns.arrange(["a", "b"], 1, 2.0 + GRACE_S, 2.0)
    assert _at_it(turns) == ["b"]
    turns.arrange(["b"], 1, 100.0, 2.0)
    assert (_at_it(turns), turns.insist_at) == (["b"], math.inf)


def test_with_fewer_turns_the_last_to_begin_are_the_next_to_come() -> None:
    turns = Turns()
    turns.arrange(NAMES, 3, 0.0, 8.0)
    turns.arrange(NAMES, 1, 1.0, 8.0)
    assert _at_it(turns) == ["a"]
    turns.arrange(NAMES, 2, 2.0, 8.0)
    assert _at_it(turns) == ["a", "b"]


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(NAMES)), st.integers(0, 5), st.floats(0, 5)), max_size=30
    )
)
def test_there_are_as_many_turns_as_odd_ones(
    events: list[tuple[set[str], int, float]],
) -> None:
    turns, now = Turns(), 0.0
    for unmet, odd, wait_s in events:
        now += wait_s
        turns.arrange(sorted(unmet), odd, now, 2.0)
        assert len(_at_it(turns)) == min(odd, len(unmet))
        assert set(_at_it(turns)) <= unmet


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 4))
def test_who_waits_gets_a_turn_before_anybody_gets_a_second_one(
    choices: list[int], odd: int
) -> None:
    turns = Turns()
    turns.arrange(NAMES, odd, 0.0, 2.0)
    line = NAMES[odd:]
    for choice in choices:
        at_it = _at_it(turns)
        done = at_it[choice % len(at_it)]
        line.append(done)
        assert turns.pass_on(done, 0.0, 2.0, back=True) == line.pop(0)

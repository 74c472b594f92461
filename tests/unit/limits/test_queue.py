"""The line of waiting samples: fair among labels by weight."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.limits import FairQueue, Stage, Ticket


def _fill(queue: FairQueue, label: str, count: int, weight: float = 1.0) -> list[Ticket]:
    tickets = [Ticket(label) for _ in range(count)]
    for ticket in tickets:
        queue.push(ticket, weight)
    return tickets


def _serve(queue: FairQueue, count: int) -> Counter[str]:
    served: Counter[str] = Counter()
    for _ in range(count):
        ticket = queue.pop()
        assert ticket is not None
        served[ticket.label] += 1
    return served


def test_within_a_label_the_first_to_come_is_the_first_to_be_served() -> None:
    queue = FairQueue()
    tickets = _fill(queue, "", 5)
    assert [queue.pop() for _ in range(5)] == tickets
    assert queue.pop() is None


def test_labels_of_weight_3_and_1_are_served_3_to_1() -> None:
    queue = FairQueue()
    _fill(queue, "train", 2000, weight=3.0)
    _fill(queue, "eval", 2000, weight=1.0)
    assert _serve(queue, 2000) == {"train": 1500, "eval": 500}


def test_a_label_that_comes_late_has_no_claim_on_the_past() -> None:
    queue = FairQueue()
    _fill(queue, "train", 2000)
    _serve(queue, 1000)
    _fill(queue, "eval", 1000)
    assert _serve(queue, 100) == {"train": 50, "eval": 50}


def test_one_that_was_turned_away_is_first_again_and_costs_its_label_nothing() -> None:
    queue = FairQueue()
    first, *_ = _fill(queue, "train", 10)
    _fill(queue, "eval", 10)
    assert queue.pop() is first
    queue.push_back(first)
    assert queue.pop() is first
    assert _serve(queue, 8) == {"train": 4, "eval": 4}


def test_one_that_left_is_not_served() -> None:
    queue = FairQueue()
    first, second = _fill(queue, "", 2)
    queue.remove(first)
    assert (len(queue), first.stage) == (1, Stage.ENDED)
    assert queue.pop() is second


def test_shares_of_what_was_granted_take_the_place_of_weights() -> None:
    queue = FairQueue()
    _fill(queue, "train", 100, weight=3.0)
    _fill(queue, "eval", 100, weight=1.0)
    queue.divide_by({"train": 30.0, "eval": 20.0})
    assert _serve(queue, 100) == {"train": 60, "eval": 40}


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="label 'eval' is 0"):
        FairQueue().push(Ticket("eval"), 0)


def test_a_queue_is_shown() -> None:
    queue = FairQueue()
    assert repr(queue) == "FairQueue(nobody)"
    _fill(queue, "", 2)
    assert repr(queue) == "FairQueue(any: 2)"


@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=5),
    serves=st.integers(1, 200),
)
def test_labels_that_wait_are_served_by_weight_to_within_one_each(
    weights: list[float], serves: int
) -> None:
    queue = FairQueue()
    for index, weight in enumerate(weights):
        _fill(queue, str(index), 200, weight)
    served = _serve(queue, serves)
    normal = [served[str(index)] / weight for index, weight in enumerate(weights)]
    for one, weight in zip(normal, weights, strict=True):
        for other, other_weight in zip(normal, weights, strict=True):
            assert one - other <= 1 / weight + 1 / other_weight + 1e-9


@given(st.lists(st.sampled_from(["push a", "push b", "pop", "back", "remove"]), max_size=80))
def test_nobody_is_lost_and_nobody_served_twice(events: list[str]) -> None:
    queue, waiting, served = FairQueue(), set[Ticket](), list[Ticket]()
    for event in events:
        if event.startswith("push"):
            (ticket,) = _fill(queue, event[-1], 1)
            waiting.add(ticket)
        elif event == "pop" and (popped := queue.pop()) is not None:
            waiting.remove(popped)
            popped.stage = Stage.DISPATCHED
            served.append(popped)
        elif event == "back" and served:
            ticket = served.pop()
            queue.push_back(ticket)
            waiting.add(ticket)
        elif event == "remove" and waiting:
            ticket = next(iter(waiting))
            queue.remove(ticket)
            waiting.remove(ticket)
        assert len(queue) == len(waiting)
    while (last := queue.pop()) is not None:
        waiting.remove(last)
        last.stage = Stage.DISPATCHED
    assert waiting == set()

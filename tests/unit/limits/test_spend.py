"""Budgets of tokens and money: reserved at most, settled for what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.errors import BudgetExceededError
from tinker_ray.limits import Price, Spend, SpendBudget

PRICES = {"m": Price(prompt=1.0, completion=3.0)}


def test_a_sample_is_reserved_for_the_most_and_settled_for_what_it_was() -> None:
    budget = SpendBudget(max_tokens=1000)
    reservation = budget.reserve("m", 100, 400)
    assert reservation is not None
    assert (budget.reserved, budget.left.tokens) == (Spend(500, 0.0), 500)

    budget.settle(reservation, 100, 20)

    assert (budget.spent, budget.reserved) == (Spend(120, 0.0), Spend())


def test_money_is_counted_by_the_price_of_the_model() -> None:
    budget = SpendBudget(max_cost=2.0, prices=PRICES)
    reservation = budget.reserve("m", 500, 100)
    assert reservation is not None
    assert budget.reserved == Spend(600, 0.8)

    budget.settle(reservation, 500, 0)

    assert budget.spent == Spend(500, 0.5)


def test_a_sample_that_may_fit_later_waits() -> None:
    budget = SpendBudget(max_tokens=100)
    first = budget.reserve("m", 10, 80)
    assert first is not None
    assert budget.reserve("m", 10, 10) is None
    budget.settle(first, 10, 5)
    assert budget.reserve("m", 10, 10) is not None


def test_a_sample_that_cannot_fit_is_refused_with_the_numbers() -> None:
    budget = SpendBudget(max_tokens=100)
    with pytest.raises(BudgetExceededError, match=r"may take 101 tokens .* spent 0 of 100"):
        budget.reserve("m", 1, 100)


def test_a_budget_that_pauses_goes_on_when_it_is_raised() -> None:
    budget = SpendBudget(max_tokens=100, pauses=True)
    assert budget.reserve("m", 1, 100) is None
    budget.raise_by(tokens=1)
    assert budget.reserve("m", 1, 100) is not None


def test_cancelling_twice_frees_once() -> None:
    budget = SpendBudget(max_tokens=100)
    reservation = budget.reserve("m", 10, 20)
    assert reservation is not None
    budget.cancel(reservation)
    budget.cancel(reservation)
    assert budget.left.tokens == 100


def test_wrong_budgets_are_named() -> None:
    with pytest.raises(ValueError, match="max_tokens is -1"):
        SpendBudget(max_tokens=-1)
    with pytest.raises(ValueError, match="needs prices"):
        SpendBudget(max_cost=1.0)
    with pytest.raises(ValueError, match=r"no price for 'x'.*known: m"):
        SpendBudget(max_cost=1.0, prices=PRICES).reserve("x", 1, 1)


def test_a_budget_shows_what_was_spent() -> None:
    budget = SpendBudget(max_tokens=100)
    assert repr(budget) == "SpendBudget(0 + 0 of 100 tokens, 0 + 0 of inf)"


@given(
    limit=st.integers(0, 400),
    samples=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans()),
        max_size=40,
    ),
)
def test_no_more_is_spent_than_allowed(
    limit: int, samples: list[tuple[int, int, int, bool]]
) -> None:
    budget = SpendBudget(limit, limit / 500, prices=PRICES)
    open_ones = []
    for prompt, most, drawn, settles in samples:
        try:
            reservation = budget.reserve("m", prompt, most)
        except BudgetExceededError:
            reservation = None
        if reservation is not None:
            open_ones.append((reservation, prompt, min(most, drawn)))
        if settles and open_ones:
            budget.settle(*open_ones.pop(0))
        assert (budget.spent + budget.reserved).fits(Spend(limit, limit / 500))
    for one in open_ones:
        budget.settle(*one)
    assert abs(budget.reserved.cost) < 1e-9
    assert budget.reserved.tokens == 0

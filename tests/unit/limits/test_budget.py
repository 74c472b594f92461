"""The byte budget: what passes, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinker_ray.limits import ByteBudget


def test_one_oversize_request_passes_and_holds_up_the_others() -> None:
    budget = ByteBudget(100)

    assert budget.admits()
    budget.take(1_000)
    assert not budget.admits()
    assert budget.left_bytes == -900
    budget.release(1_000)
    assert budget.admits()


def test_a_budget_used_up_exactly_still_admits_one() -> None:
    budget = ByteBudget(100)
    budget.take(100)

    assert budget.admits()
    budget.take(1)
    assert not budget.admits()


def test_wrong_accounts_are_refused() -> None:
    budget = ByteBudget(100)

    with pytest.raises(ValueError, match="negative"):
        budget.take(-1)
    with pytest.raises(ValueError, match="released"):
        budget.release(1)
    assert "100 of 100" in repr(budget)


class BudgetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.budget = ByteBudget(50)
        self.under_way: list[int] = []

    @precondition(lambda self: self.budget.admits())
    @rule(cost_bytes=st.integers(0, 200))
    def admit(self, cost_bytes: int) -> None:
        self.budget.take(cost_bytes)
        self.under_way.append(cost_bytes)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.budget.release(self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1))))

    @invariant()
    def the_account_balances(self) -> None:
        assert self.budget.left_bytes == 50 - sum(self.under_way)
        assert self.budget.admits() == (sum(self.under_way) <= 50)


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)

"""Amounts of tokens and money, for the budget of a run.

:mod:`tinker_ray.limits.spend_ledger` divides a budget over the processes of a run, and
:mod:`tinker_ray.limits.spend_share` keeps to it in each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.budget import Budget

_SLACK = 1e-9
"""Of sums of money in floating point."""


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount: tokens, and what they cost."""

    tokens: float = 0
    cost: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        """Both together."""
        return Spend(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: Spend) -> Spend:
        """This without the other."""
        return Spend(self.tokens - other.tokens, self.cost - other.cost)

    def __mul__(self, factor: float) -> Spend:
        """So many times this."""
        return Spend(self.tokens * factor, self.cost * factor)

    def at_most(self, other: Spend) -> Spend:
        """The smaller of both, in each respect."""
        return Spend(min(self.tokens, other.tokens), min(self.cost, other.cost))

    def at_least(self, other: Spend) -> Spend:
        """The larger of both, in each respect."""
        return Spend(max(self.tokens, other.tokens), max(self.cost, other.cost))

    def fits(self, other: Spend) -> bool:
        """Whether this is no more than the other in both respects."""
        return self.tokens <= other.tokens and self.cost <= other.cost + _SLACK


NO_SPEND = Spend()


def limit_of(budget: Budget) -> Spend:
    """Return a budget as an amount; infinity where there is none."""
    return Spend(
        math.inf if budget.max_tokens is None else budget.max_tokens,
        math.inf if budget.max_cost is None else budget.max_cost,
    )

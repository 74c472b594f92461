"""What a run may cost: a budget of tokens, and one of money, kept to before a sample is sent.

Pure, and knows no prices but those that it is given. A sample is admitted if what it can cost at
most fits beside what was spent and what others under way can cost at most; afterwards it is settled
for what it did cost. Invariant: what was spent never exceeds the budget, as long as nothing costs
more than it was reserved for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENS_PER_PRICE = 1000
_SLACK = 1e-9
"""Of sums of money in floating point."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of 1 000 tokens, in any currency.

    Attributes:
        prompt: Of tokens sent.
        completion: Of tokens drawn.
    """

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, num_prompt_tokens: int, num_drawn_tokens: int) -> float:
        """What so many tokens cost."""
        cost = num_prompt_tokens * self.prompt + num_drawn_tokens * self.completion
        return cost / TOKENS_PER_PRICE


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

    def fits(self, other: Spend) -> bool:
        """Whether this is no more than the other in both respects."""
        return self.tokens <= other.tokens and self.cost <= other.cost + _SLACK


NO_SPEND = Spend()


@dataclass(slots=True, eq=False)
class Reservation:
    """What a sample that is under way can cost at most."""

    amount: Spend
    price: Price


class SpendBudget:
    """Admits samples while the budget lasts.

    Example::

        reservation = budget.reserve("Qwen/Qwen3-8B", 900, 4 * 256)
        if reservation is None: ...                  # wait: others may turn out cheaper
        budget.settle(reservation, 900, 611)         # or budget.cancel(reservation)
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        *,
        prices: Mapping[str, Price] | None = None,
        pauses: bool = False,
    ) -> None:
        """Start with nothing spent.

        Args:
            max_tokens: Sent and drawn, in all; None for any number.
            max_cost: In the currency of the prices; None for any amount.
            prices: Of each model.
            pauses: Whether samples wait, for the budget to be raised, when it is used up; otherwise
                that is an error.

        Raises:
            ValueError: A budget is negative, or money is to be kept to without prices.
        """
        for name, value in (("max_tokens", max_tokens), ("max_cost", max_cost)):
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; a budget is not negative")
        if max_cost is not None and not prices:
            raise ValueError("max_cost needs prices: pass prices={model: Price(...)}")
        self._limit = Spend(
            math.inf if max_tokens is None else max_tokens,
            math.inf if max_cost is None else max_cost,
        )
        self._prices = dict(prices or {})
        self._pauses = pauses
        self._spent = NO_SPEND
        self._reserved = NO_SPEND

    def __repr__(self) -> str:
        """Show what was spent, and what is under way."""
        spent, reserved, limit = self._spent, self._reserved, self._limit
        return (
            f"SpendBudget({spent.tokens:g} + {reserved.tokens:g} of {limit.tokens:g} tokens, "
            f"{spent.cost:.4g} + {reserved.cost:.4g} of {limit.cost:.4g})"
        )

    @property
    def spent(self) -> Spend:
        """What settled samples did cost."""
        return self._spent

    @property
    def reserved(self) -> Spend:
        """What samples under way can cost at most."""
        return self._reserved

    @property
    def left(self) -> Spend:
        """What nothing is reserved for."""
        return self._limit - self._spent - self._reserved

    def reserve(
        self, model: str, num_prompt_tokens: int, max_drawn_tokens: int
    ) -> Reservation | None:
        """Set aside what a sample can cost at most.

        Args:
            model: Its price counts.
            num_prompt_tokens: Of the prompt.
            max_drawn_tokens: Of all its sequences together.

        Returns:
            None if it has to wait: until samples under way turn out cheaper than they could be, or
            until the budget is raised.

        Raises:
            BudgetExceededError: It does not fit, however cheap the samples under way turn out.
            ValueError: Money is to be kept to, and the model has no price.
        """
        price = self._price(model)
        amount = Spend(
            num_prompt_tokens + max_drawn_tokens, price.of(num_prompt_tokens, max_drawn_tokens)
        )
        if amount.fits(self.left):
            self._reserved += amount
            return Reservation(amount, price)
        if not self._pauses and not (self._spent + amount).fits(self._limit):
            raise BudgetExceededError(self._refusal(model, amount))
        return None

    def settle(
        self, reservation: Reservation, num_prompt_tokens: int, num_drawn_tokens: int
    ) -> None:
        """Count what a sample did cost, and free the rest of what was set aside for it."""
        self.cancel(reservation)
        cost = reservation.price.of(num_prompt_tokens, num_drawn_tokens)
        self._spent += Spend(num_prompt_tokens + num_drawn_tokens, cost)

    def cancel(self, reservation: Reservation) -> None:
        """Free what was set aside for a sample that cost nothing; twice is as good as once."""
        self._reserved -= reservation.amount
        reservation.amount = NO_SPEND

    def raise_by(self, tokens: int = 0, cost: float = 0.0) -> None:
        """Allow more."""
        self._limit += Spend(tokens, cost)

    def _price(self, model: str) -> Price:
        price = self._prices.get(model)
        if price is None and not math.isinf(self._limit.cost):
            known = ", ".join(sorted(self._prices))
            raise ValueError(f"no price for {model!r}, needed to keep to max_cost; known: {known}")
        return price or Price()

    def _refusal(self, model: str, amount: Spend) -> str:
        return (
            f"a sample of {model} may take {amount.tokens:g} tokens (cost {amount.cost:.4g}), and "
            f"the run has spent {self._spent.tokens:g} of {self._limit.tokens:g} tokens and "
            f"{self._spent.cost:.4g} of {self._limit.cost:.4g}; raise the budget or ask for fewer "
            "tokens"
        )

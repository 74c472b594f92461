"""What a run may cost: amounts of tokens and money, prices, and the budget that a user sets.

Values only; :mod:`tinker_ray.limits.spend_ledger` divides a budget over the processes of a run and
:mod:`tinker_ray.limits.spend_share` keeps to it in each. Knows no prices but those that it is
given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tinker_ray.errors import ConfigurationError

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


@dataclass(frozen=True, slots=True)
class Budget:
    """What the samples of a run may cost, on all its processes together.

    A sample is counted with its prompt, once however many sequences are drawn from it, and the
    tokens that were drawn. Training is not counted.

    Attributes:
        max_tokens: Sent and drawn, in all; None for any number.
        max_cost: In the currency of the prices; None for any amount.
        prices: Of each base model.
        when_used_up: Whether samples then raise, or wait for the budget to be raised.

    Raises:
        ConfigurationError: A number is negative, or money is to be kept to without prices.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    when_used_up: Literal["raise", "wait"] = "raise"

    def __post_init__(self) -> None:
        for name, value in (("max_tokens", self.max_tokens), ("max_cost", self.max_cost)):
            if value is not None and not value >= 0:
                raise ConfigurationError(f"Budget({name}={value}): a budget is not negative")
        if self.max_cost is not None and not self.prices:
            message = "Budget(max_cost=…) needs prices: pass prices={model: Price(…)}"
            raise ConfigurationError(message)
        if self.when_used_up not in {"raise", "wait"}:
            message = f"Budget(when_used_up={self.when_used_up!r}): use 'raise' or 'wait'"
            raise ConfigurationError(message)

    @property
    def limit(self) -> Spend:
        """The budget as an amount; infinity where there is none."""
        return Spend(
            math.inf if self.max_tokens is None else self.max_tokens,
            math.inf if self.max_cost is None else self.max_cost,
        )

    def price(self, model: str) -> Price:
        """Return the price of a model; nothing if money does not count.

        Raises:
            ConfigurationError: Money is to be kept to, and the model has no price.
        """
        price = self.prices.get(model)
        if price is None and self.max_cost is not None:
            known = ", ".join(sorted(self.prices))
            message = f"no price for {model!r}, needed to keep to max_cost; there are: {known}"
            raise ConfigurationError(message)
        return price or Price()

"""What a run may cost, as its user says it.

Knows no prices but those that it is given, and not how it is kept to (see
:mod:`tinker_ray.limits.spend`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENS_PER_PRICE = 1000


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


def to_plain(budget: Budget | None) -> dict[str, Any] | None:
    """Return a budget as JSON can hold it."""
    return None if budget is None else asdict(budget)


def from_plain(plain: Mapping[str, Any] | None) -> Budget | None:
    """Undo :func:`to_plain`."""
    if plain is None:
        return None
    prices = {model: Price(**price) for model, price in plain["prices"].items()}
    return Budget(**{**plain, "prices": prices})

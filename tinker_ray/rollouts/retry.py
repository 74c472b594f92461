"""How often a group is run again, by what it failed of.

Knows nothing of groups. Invariant: the budgets are separate, so that lost workers do not use up
the patience with an environment.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from tinker_ray.rollouts.failure import FailureKind


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How often one group is run again, with fresh environments, for each class of failure.

    A request that the service refused would be refused again, so it has no budget.

    Attributes:
        infrastructure: A worker or the service was lost; as often, by a count of its own, if what
            the group was to be drawn with is gone.
        environment: The user's code raised.
        timeout: A stage, or the group, took too long.
        stall: A stage took too long and could not be stopped.

    Raises:
        ConfigurationError: A number is negative.
    """

    infrastructure: int = 3
    environment: int = 1
    timeout: int = 1
    stall: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for budget in fields(self):
            value = getattr(self, budget.name)
            if value < 0:
                raise ConfigurationError(f"retries: {budget.name}={value!r} must not be negative")

    @classmethod
    def of(cls, retries: int | RetryBudget) -> RetryBudget:
        """Read a number as the budget of infrastructure failures."""
        return retries if isinstance(retries, RetryBudget) else cls(infrastructure=retries)

    def allows(self, failures: Counter[FailureKind], kind: FailureKind) -> bool:
        """Whether a group may run again.

        Args:
            failures: Of the group so far, the newest among them.
            kind: Of the newest.
        """
        budget: int = getattr(self, "infrastructure" if kind == "gone" else kind, 0)
        return failures[kind] <= budget

"""A service that holds only so many samples at once, and says 429 to the others."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Service:
    """How long things take, and how many there is room for.

    Attributes:
        capacity: Samples at work at once; None for any number.
        post_s: What a POST takes on average; half of it there, half of it back.
        sample_s: What a sample takes on average, from its acceptance to its answer.
    """

    capacity: int | None
    post_s: float
    sample_s: float
    rng: random.Random
    at_work: int = 0
    most_at_work: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    rejected_at: list[float] = field(default_factory=list)

    def arrive(self, now: float) -> bool:
        """Take in a sample; False for a 429."""
        if self.capacity is not None and self.at_work >= self.capacity:
            self.num_rejected += 1
            self.rejected_at.append(now)
            return False
        self.at_work += 1
        self.num_accepted += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        return True

    def leave(self) -> None:
        """Answer a sample."""
        self.at_work -= 1

    def draw_post_s(self) -> float:
        """Draw how long a POST takes, one way."""
        return 0.5 * self.post_s * self._spread(0.3)

    def draw_sample_s(self) -> float:
        """Draw how long a sample takes."""
        return self.sample_s * self._spread(0.4)

    def _spread(self, sigma: float) -> float:
        return self.rng.lognormvariate(-sigma * sigma / 2, sigma)

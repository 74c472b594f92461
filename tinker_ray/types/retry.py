"""How a sampling client repeats samples that were lost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryConfig:
    """The upstream SDK's knobs for whole samples (single requests have a schedule of their own).

    Attributes:
        max_connections: Samples in flight per sampling session; None takes the service's number.
        progress_timeout: Seconds without any completed sample after which waiting ones fail.
        retry_delay_base: Seconds before the first repetition; doubles with each.
        retry_delay_max: Upper bound of that, in seconds.
        jitter_factor: Share by which a delay varies at random, up or down.
        enable_retry_logic: Whether lost samples are repeated at all.
    """

    max_connections: int | None = None
    progress_timeout: float = 7200.0
    retry_delay_base: float = 0.5
    retry_delay_max: float = 10.0
    jitter_factor: float = 0.25
    enable_retry_logic: bool = True

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds before repetition ``attempt`` (from 0); ``chance`` in [0, 1) picks the jitter."""
        delay = min(self.retry_delay_base * 2.0**attempt, self.retry_delay_max)
        jittered = delay * (1 + self.jitter_factor * (2 * chance - 1))
        return min(max(jittered, 0.0), self.retry_delay_max)

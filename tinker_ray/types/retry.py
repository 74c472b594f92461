"""How a sampling client repeats samples that were lost."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_ray.errors import APIConnectionError, RetryableException

DEFAULT_MAX_CONNECTIONS = 1000


@dataclass(unsafe_hash=True)
class RetryConfig:
    """The upstream SDK's knobs for whole samples (single requests have a schedule of their own).

    Attributes:
        max_connections: Samples in flight per sampling session; None sets no bound of its own.
        progress_timeout: Seconds without any completed sample after which waiting ones fail.
        retry_delay_base: Seconds before the first repetition; doubles with each.
        retry_delay_max: Upper bound of that, in seconds.
        jitter_factor: Share by which a delay varies at random, up or down.
        enable_retry_logic: Whether lost samples are repeated at all.
        enable_stuck_detection: Whether ``progress_timeout`` counts.
        retryable_exceptions: What is repeated, besides answers of status 408, 409, 429 and 5xx.
    """

    max_connections: int | None = DEFAULT_MAX_CONNECTIONS
    progress_timeout: float = 7200.0
    retry_delay_base: float = 0.5
    retry_delay_max: float = 10.0
    jitter_factor: float = 0.25
    enable_retry_logic: bool = True
    enable_stuck_detection: bool = True
    retryable_exceptions: tuple[type[Exception], ...] = (
        TimeoutError,
        APIConnectionError,
        RetryableException,
    )

    def __post_init__(self) -> None:
        """Refuse a bound that nothing can pass.

        Raises:
            ValueError: ``max_connections`` is 0 or less.
        """
        if self.max_connections is not None and self.max_connections <= 0:
            message = f"max_connections must be positive or None, got {self.max_connections}"
            raise ValueError(message)

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds before repetition ``attempt`` (from 0); ``chance`` in [0, 1) picks the jitter."""
        # Beyond 2**64 every bound is long reached, and floats overflow.
        delay = min(self.retry_delay_base * 2.0 ** min(attempt, 64), self.retry_delay_max)
        jittered = delay * (1 + self.jitter_factor * (2 * chance - 1))
        return min(max(jittered, 0.0), self.retry_delay_max)

"""How many samplers a session has on a cluster: what users may choose."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_ray.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The samplers of a session on a cluster.

    Attributes:
        min_samplers: That are always there: ``TINKER_RAY_MIN_SAMPLERS``.
        max_samplers: At most: ``TINKER_RAY_MAX_SAMPLERS``.
        samples_per_sampler: Samples, waiting or in flight, that one carries well; with more to do
            the pool grows.
        sampler_idle_s: Seconds for which fewer would have done before some are drained.
        hedge_after_s: Seconds after which a repeatable sample that has also taken longer than most
            is drawn by a second sampler, too: ``TINKER_RAY_HEDGE_AFTER_S``; None for never.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    min_samplers: int = 1
    max_samplers: int = 8
    samples_per_sampler: int = 5000
    sampler_idle_s: float = 60.0
    hedge_after_s: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("min_samplers", "max_samplers", "samples_per_sampler"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                message = f"{name}={value!r} must be a whole number of at least 1"
                raise ConfigurationError(message)
        if self.max_samplers < self.min_samplers:
            message = (
                f"max_samplers={self.max_samplers} is below min_samplers={self.min_samplers}: "
                "raise the one or lower the other"
            )
            raise ConfigurationError(message)
        for name in ("sampler_idle_s", "hedge_after_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                message = f"{name}={value!r} must be a positive number of seconds"
                raise ConfigurationError(message)

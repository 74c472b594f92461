"""The rollout worker of this process: groups as coroutines on the caller's event loop.

Knows nothing of Ray. Invariant: a group that is cancelled leaves no task behind.
"""

from __future__ import annotations

from actors.rollout import at_once
from tinker_ray.rollouts import (
    Attempt,
    EnvGroupBuilder,
    Sampler,
    SamplerPolicy,
    TrajectoryGroup,
    run_group,
)


class LocalWorker:
    """Runs groups in this process."""

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        """Run the group's episodes concurrently.

        Raises:
            RolloutFailedError: The environment or the sampler raised.
        """
        return await run_group(builder, SamplerPolicy(sampler, attempt.params), together=at_once)

    async def close(self) -> None:
        """Nothing to close."""

"""The rollout worker of this process: groups as coroutines on the caller's event loop.

Knows nothing of Ray. Invariant: a group that is cancelled leaves no task behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from tinker_ray.rollouts import (
    Attempt,
    EnvGroupBuilder,
    Sampler,
    SamplerPolicy,
    TrajectoryGroup,
    run_group,
)

T = TypeVar("T")


async def at_once(coroutines: Sequence[Coroutine[Any, Any, T]], /) -> list[T]:
    """Run coroutines concurrently; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


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

"""Where a pool's workers run: next to the sampler's session, as actors if that is on a cluster.

Knows neither Ray nor the actors, but that a runtime may open rollout workers. Invariant: what
belongs to the clients' event loop is only touched there.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from actors.worker_options import PLAIN_WORKER, WorkerOptions
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.rl.worker import LocalWorker
from tinker_ray.rollouts import (
    Attempt,
    EnvGroupBuilder,
    RolloutWorker,
    Sampler,
    TrajectoryGroup,
)


class PoolWorker(RolloutWorker, Protocol):
    """A worker that a pool opened and closes."""

    async def close(self) -> None:
        """Release what the worker holds; idempotent."""
        ...


@runtime_checkable
class RolloutHost(Protocol):
    """A runtime with room for rollout workers beside its session."""

    async def open_rollout(self, number: int, worker: WorkerOptions) -> PoolWorker:
        """Open the worker of a number that is not used twice."""
        ...


class BridgedWorker:
    """A worker that lives on the clients' event loop, for callers on any other one."""

    def __init__(self, worker: PoolWorker) -> None:
        self._worker = worker

    def __repr__(self) -> str:
        """Show the worker."""
        return f"BridgedWorker({self._worker!r})"

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        """Run the group there; cancelling this cancels it.

        Raises:
            RolloutFailedError: The environment or the sampler raised.
            ActorLostError: The worker died.
        """
        return await APIFuture.start(self._worker.run_group(builder, sampler, attempt))

    async def close(self) -> None:
        """Close the worker; idempotent."""
        await APIFuture.start(self._worker.close())


async def open_worker(
    sampler: Sampler, number: int, options: WorkerOptions = PLAIN_WORKER
) -> PoolWorker:
    """Open a worker beside the session of a sampling client; for other samplers, in this process.

    Args:
        sampler: A sampling client, or any other sampler.
        number: Not used twice.
        options: What the worker is given; resources count on a cluster alone.

    Raises:
        ConfigurationError: The setup hook failed.
        TinkerError: The session or the worker could not be opened.
    """
    if isinstance(sampler, SamplingClient):
        session = sampler._session  # noqa: SLF001 - the runtime is the clients' own business
        runtime = await APIFuture.start(session.runtime())
        if isinstance(runtime, RolloutHost):
            return BridgedWorker(await APIFuture.start(runtime.open_rollout(number, options)))
    return LocalWorker(options)

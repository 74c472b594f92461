"""The rollout worker of this process: environments run beside its event loop, as in actors.

Knows nothing of Ray. Invariant: a group that is cancelled leaves no task behind.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.env_host import EnvHost
from actors.worker_options import PLAIN_WORKER, WorkerOptions, run_setup_once
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.errors import ActorLostError
from tinker_ray.rollouts import (
    Attempt,
    EnvGroupBuilder,
    Sampler,
    SamplerPolicy,
    TrajectoryGroup,
)

if TYPE_CHECKING:
    from tinker_ray.types import ModelInput, SampleResponse, SamplingParams


@dataclass(frozen=True, slots=True)
class CallersSampler:
    """A sampler that is used on the event loop that it came from.

    Attributes:
        sampler: The sampler.
        loop: Where it may be used.
    """

    sampler: Sampler
    loop: asyncio.AbstractEventLoop

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        """Sample there."""
        drawing = self._draw(prompt, num_samples, sampling_params)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(drawing, self.loop))

    async def _draw(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        return await self.sampler.sample_async(prompt, num_samples, sampling_params)


class LocalWorker:
    """Runs groups in this process.

    Args:
        options: What workers are given; of these, the setup hook and the threads count here.

    Raises:
        ConfigurationError: The setup hook failed.
    """

    _host: EnvHost | None = None
    _options: WorkerOptions = PLAIN_WORKER

    def __init__(self, options: WorkerOptions = PLAIN_WORKER) -> None:
        self._options = options
        run_setup_once(options.setup, "this process")

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        """Build the environments anew and run an episode in each, side by side.

        Raises:
            RolloutFailedError: An environment or the sampler raised, or took too long.
            ActorLostError: So much hangs here that the worker has to be replaced.
        """
        if self._host is None:
            name = "the rollout worker of this process"
            self._host = EnvHost(name, threads=self._options.threads)
        if not isinstance(sampler, SamplingClient):
            sampler = CallersSampler(sampler, asyncio.get_running_loop())
        policy = SamplerPolicy(sampler, attempt.params)
        try:
            return await self._host.run_group(builder, policy, attempt)
        except ActorLostError:
            await self.close()
            raise

    async def close(self) -> None:
        """Cancel the groups; idempotent."""
        host, self._host = self._host, None
        if host is not None:
            await host.aclose()

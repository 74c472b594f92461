"""Groups of environments on the cluster, with the sampling core in the same process.

So a sample takes no hop. Knows nothing of Ray. Environments run on an event loop and in threads of
their own, so that slow ones delay neither the samples of others nor the renewal of permits.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.env_host import EnvHost
from actors.env_threads import MAX_THREADS
from actors.hosted import HostedSampling
from tinker_ray.core.sample_check import check_request
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.rollouts import SamplerPolicy
from tinker_ray.rollouts.far import FAR_BYTES, divided
from tinker_ray.types import RetryConfig
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from actors.lease_keeper import Ledger
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.rollouts import Attempt, EnvGroupBuilder, Sampler, TrajectoryGroup
    from tinker_ray.rollouts.packing import PackedGroup
    from tinker_ray.rollouts.summary import GroupSummary
    from tinker_ray.types import ModelInput, SampleResponse, SamplingParams, TensorData


@dataclass(frozen=True, slots=True)
class SamplerRef:
    """A sampling client, as a rollout actor is told of it."""

    sampling_session_id: str
    retry: RetryConfig | None = None
    record_stability_info: bool = False
    traffic: Traffic = ORDINARY

    @classmethod
    def of(cls, sampler: Any) -> Any:  # noqa: ANN401 - users bring samplers of their own
        """Turn a sampling client into a reference; any other sampler travels as it is."""
        session_id = getattr(sampler, "sampling_session_id", None)
        if not isinstance(session_id, str):
            return sampler
        retry = getattr(sampler, "retry_config", None)
        return cls(
            session_id,
            retry if isinstance(retry, RetryConfig) else None,
            bool(getattr(sampler, "record_stability_info", False)),
            getattr(sampler, "traffic", ORDINARY),
        )


class HostedSampler:
    """A sampler over the core of this process, for environments on another event loop."""

    def __init__(
        self, sampling: HostedSampling, reference: SamplerRef, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sampling_session_id = reference.sampling_session_id
        self._sampling = sampling
        self._retry = reference.retry
        self._traffic = reference.traffic
        self._record_stability_info = reference.record_stability_info
        self._loop = loop

    async def sample_async(  # noqa: PLR0913 - upstream's signature
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
    ) -> SampleResponse:
        """Continue a prompt ``num_samples`` times, as a sampling client does.

        Raises:
            ValueError: An argument is out of its range.
            TinkerError: The request was refused, failed or lost.
        """
        request = SampleRequest(
            prompt=prompt,
            sampling_params=sampling_params,
            num_samples=num_samples,
            sampling_session_id=self.sampling_session_id,
            prompt_logprobs=include_prompt_logprobs,
            topk_prompt_logprobs=topk_prompt_logprobs,
            topk_sample_logprobs=topk_sample_logprobs,
            target_prompt_logprobs=target_prompt_logprobs,
            prompt_alt_tokens_k=prompt_alt_tokens_k,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
            record_stability_info=self._record_stability_info,
        )
        check_request(request)
        sample = self._sampling.sample(request, self._retry, traffic=self._traffic)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sample, self._loop))


class RolloutActor:
    """Runs groups of environments, many at once.

    Args:
        service: The session.
        ledger: Where permits are leased.
        name: Of the actor.
        node: Of its Ray node.
        link: The service; by default one is opened from the environment.
        threads: How many blocking calls of environments may run at once.
        far_bytes: From which size on groups are answered by reference; None answers none so.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(  # noqa: PLR0913 - the actor's identity
        self,
        service: ServiceSpec,
        ledger: Ledger,
        *,
        name: str = "rollout",
        node: str = "",
        link: Link | None = None,
        threads: int = MAX_THREADS,
        far_bytes: int | None = FAR_BYTES,
    ) -> None:
        self._sampling = HostedSampling(
            service, ledger, kind="rollout", actor=name, node=node, link=link
        )
        self._far_bytes = far_bytes
        self._loop = asyncio.get_running_loop()
        self._environments = EnvHost(name, threads=threads)

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"RolloutActor({self._sampling!r}, {self._environments!r})"

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: SamplerRef | Sampler, attempt: Attempt
    ) -> tuple[GroupSummary | PackedGroup | TrajectoryGroup, PackedGroup | None]:
        """Build the environments anew and run an episode in each, side by side.

        Returns:
            The group, packed for its way if that pays; if it is large, what there is to know of it,
            and itself.

        Raises:
            RolloutFailedError: An environment or the sampler raised, or took too long.
            ActorLostError: So much hangs here that the worker has to be replaced.
        """
        if isinstance(sampler, SamplerRef):
            sampler = HostedSampler(self._sampling, sampler, self._loop)
        policy = SamplerPolicy(sampler, attempt.params)
        group = await self._environments.run_group(builder, policy, attempt)
        answer: tuple[GroupSummary | PackedGroup | TrajectoryGroup, PackedGroup | None]
        answer = await self._environments.call(divided, group, self._far_bytes)
        return answer

    async def aclose(self) -> None:
        """Cancel the groups, give the permits back and close the connections; idempotent."""
        await self._environments.aclose()
        await self._sampling.aclose()

"""``SamplingClient``: draws from one version of the weights, for life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.ready import Ready
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.telemetry.carrier import inject
from tinker_ray.types import SamplingParams
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.types import ModelInput, RetryConfig, SampleResponse


class SamplingClient(Ready):
    """Samples from a base model, a checkpoint or a snapshot of a model in training.

    Made by :class:`ServiceClient` and :class:`TrainingClient`. The weights never change: after
    further training, ask for a new client.
    """

    def __init__(
        self, session: ClientSession, sampling_session_id: str, retry_config: RetryConfig | None
    ) -> None:
        self.sampling_session_id = sampling_session_id
        self.retry_config = retry_config
        self._session = session

    def _shown(self) -> str:
        return repr(self.sampling_session_id)

    def sample(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        topk_prompt_logprobs: int = 0,
    ) -> APIFuture[SampleResponse]:
        """Continue a prompt ``num_samples`` times.

        Args:
            prompt: Token ids, at most the model's context length.
            num_samples: Draws, at least 1; they share the work on the prompt.
            sampling_params: How to draw.
            include_prompt_logprobs: Whether to score the prompt's tokens too.
            topk_prompt_logprobs: How many of the likeliest tokens to report per prompt token.

        Raises:
            ValueError: ``num_samples`` or ``topk_prompt_logprobs`` is out of range.
            TinkerError: From the future: the request was refused, failed or lost.
        """
        if num_samples < 1:
            message = f"num_samples={num_samples}: draw at least 1"
            raise ValueError(message)
        if topk_prompt_logprobs < 0:
            message = f"topk_prompt_logprobs={topk_prompt_logprobs}: use 0 or more"
            raise ValueError(message)
        request = SampleRequest(
            prompt=prompt,
            sampling_params=sampling_params,
            num_samples=num_samples,
            sampling_session_id=self.sampling_session_id,
            prompt_logprobs=include_prompt_logprobs,
            topk_prompt_logprobs=topk_prompt_logprobs,
        )
        return APIFuture.start(self._sample(request, inject()))

    async def sample_async(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        topk_prompt_logprobs: int = 0,
    ) -> SampleResponse:
        """Async twin of :meth:`sample`; gives the response."""
        return await self.sample(
            prompt, num_samples, sampling_params, include_prompt_logprobs, topk_prompt_logprobs
        )

    def compute_logprobs(self, prompt: ModelInput) -> APIFuture[list[float | None]]:
        """Score a prompt: one logprob per token given those before it, None for the first.

        Raises:
            TinkerError: From the future: the request was refused, failed or lost.
        """
        request = SampleRequest(
            prompt=prompt,
            sampling_params=SamplingParams(max_tokens=1),
            sampling_session_id=self.sampling_session_id,
            prompt_logprobs=True,
        )
        return APIFuture.start(self._prompt_logprobs(request, inject()))

    async def compute_logprobs_async(self, prompt: ModelInput) -> list[float | None]:
        """Async twin of :meth:`compute_logprobs`."""
        return await self.compute_logprobs(prompt)

    def get_base_model(self) -> str:
        """Return the name of the base model.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self._base_model()).result()

    async def get_base_model_async(self) -> str:
        """Async twin of :meth:`get_base_model`."""
        return await APIFuture.start(self._base_model())

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the base model's tokenizer.

        Raises:
            ConfigurationError: transformers is not installed.
        """
        return load_tokenizer(self.get_base_model())

    async def _sample(self, request: SampleRequest, carrier: dict[str, str]) -> SampleResponse:
        runtime = await self._session.runtime()
        return await runtime.sampling.sample(request, self.retry_config, carrier)

    async def _prompt_logprobs(
        self, request: SampleRequest, carrier: dict[str, str]
    ) -> list[float | None]:
        response = await self._sample(request, carrier)
        return response.prompt_logprobs or []

    async def _base_model(self) -> str:
        runtime = await self._session.runtime()
        arguments = {"sampler_id": self.sampling_session_id}
        sampler = await runtime.registry.call("get_sampler", arguments)
        name: str = sampler.base_model
        return name

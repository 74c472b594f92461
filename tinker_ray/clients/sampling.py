"""``SamplingClient``: draws from one version of the weights, for life."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinker_ray.clients import copies
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.attribution import attributed
from tinker_ray.clients.holder import Holder, QueueStateObserver
from tinker_ray.clients.ready import Ready
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.core.sample_check import check_request
from tinker_ray.core.traffic import ORDINARY, Traffic
from tinker_ray.telemetry.carrier import inject
from tinker_ray.types import SampleRequest, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.clients.telemetry import Telemetry
    from tinker_ray.types import (
        ModelInput,
        QueueState,
        RetryConfig,
        SampleResponse,
        TensorData,
    )


@attributed
class SamplingClient(Ready, QueueStateObserver):
    """Samples from a base model, a checkpoint or a snapshot of a model in training.

    Made by :class:`ServiceClient` and :class:`TrainingClient`. The weights never change: after
    further training, ask for a new client. It can be pickled, and passed to any process that has
    credentials of its own; the copies draw from the same sampling session.

    Attributes:
        sampling_session_id: The sampling session.
        retry_config: How lost samples are repeated; None for the defaults.
        record_stability_info: Whether the service keeps what StableReinforce needs of its samples.
        traffic: The kind of its samples and their conversation, if any.
        holder: What is behind all clients of the session.
    """

    def __init__(  # noqa: PLR0913 - upstream's, and what its samples are
        self,
        holder: Holder | ClientSession,
        sampling_session_id: str,
        retry_config: RetryConfig | None = None,
        *,
        base_model: str | None = None,
        record_stability_info: bool = False,
        traffic: Traffic = ORDINARY,
    ) -> None:
        self.sampling_session_id = sampling_session_id
        self.retry_config = retry_config
        self.record_stability_info = record_stability_info
        self.traffic = traffic
        self._session = holder.session if isinstance(holder, Holder) else holder
        self.holder = Holder(self._session)
        self._base_model = base_model
        self._queue_log = QueueLog(f"sampler {sampling_session_id}", time.monotonic)

    @staticmethod
    def create(  # noqa: PLR0913 - upstream's signature
        holder: Holder,
        *,
        model_path: str | None = None,
        base_model: str | None = None,
        sampling_session_id: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
    ) -> SamplingClient:
        """Sample from a base model, a checkpoint, or a sampling session that exists.

        Raises:
            ValueError: None of the three is given.
            TinkerError: The service knows it not.
        """
        if sampling_session_id is not None:
            return SamplingClient(
                holder,
                sampling_session_id,
                retry_config,
                base_model=base_model,
                record_stability_info=record_stability_info,
            )
        from tinker_ray.clients.sampler_making import open_sampler

        return open_sampler(
            holder.session,
            base_model=base_model,
            model_path=model_path,
            retry_config=retry_config,
            record_stability_info=record_stability_info,
        )

    def _shown(self) -> str:
        return repr(self.sampling_session_id)

    @property
    def _sampling_session_id(self) -> str:
        """The sampling session, by the name under which upstream's scripts reach for it."""
        return self.sampling_session_id

    def sample(  # noqa: PLR0913 - upstream's signature
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
    ) -> APIFuture[SampleResponse]:
        """Continue a prompt ``num_samples`` times.

        Cancelling the future, or the task that awaits it, cancels the samples at the service.

        Args:
            prompt: Token ids, at most the model's context length.
            num_samples: Draws, at least 1; they share the work on the prompt.
            sampling_params: How to draw.
            include_prompt_logprobs: Whether to score the prompt's tokens too.
            topk_prompt_logprobs: How many of the likeliest tokens to report per prompt token.
            topk_sample_logprobs: How many of the likeliest tokens to report per sampled token.
            target_prompt_logprobs: Token ids to score at each prompt position but the first, int64
                of shape ``(len(prompt) - 1, K)``, dense or CSR; -1 scores nothing.
            prompt_alt_tokens_k: How many tokens to draw besides the prompt's own, at each position
                but the first.
            prompt_logprobs_last_n: Score only that many tokens at the prompt's end.

        Raises:
            ValueError: An argument is out of its range.
            UnfulfilledError: From the future: the service is too old for what was asked.
            TinkerError: From the future: the request was refused, failed or lost.
        """
        if topk_prompt_logprobs < 0 or topk_sample_logprobs < 0:
            message = (
                f"topk_prompt_logprobs={topk_prompt_logprobs}, "
                f"topk_sample_logprobs={topk_sample_logprobs}: use 0 or more"
            )
            raise ValueError(message)
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
            record_stability_info=self.record_stability_info,
        )
        check_request(request)
        return APIFuture.start(self._sample(request, inject()))

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
        """Async twin of :meth:`sample`; gives the response."""
        return await self.sample(
            prompt,
            num_samples,
            sampling_params,
            include_prompt_logprobs,
            topk_prompt_logprobs,
            topk_sample_logprobs,
            target_prompt_logprobs,
            prompt_alt_tokens_k,
            prompt_logprobs_last_n,
        )

    def compute_logprobs(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> APIFuture[list[float | None]]:
        """Score a prompt: one logprob per token given those before it, None for the first.

        Args:
            prompt: Token ids, at most the model's context length.
            prompt_logprobs_last_n: Score only that many tokens at the end; None before them.

        Raises:
            ValueError: ``prompt_logprobs_last_n`` is not positive.
            TinkerError: From the future: the request was refused, failed or lost.
        """
        request = SampleRequest(
            prompt=prompt,
            sampling_params=SamplingParams(max_tokens=1),
            sampling_session_id=self.sampling_session_id,
            prompt_logprobs=True,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
            record_stability_info=self.record_stability_info,
        )
        check_request(request)
        return APIFuture.start(self._prompt_logprobs(request, inject()))

    async def compute_logprobs_async(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> list[float | None]:
        """Async twin of :meth:`compute_logprobs`."""
        return await self.compute_logprobs(prompt, prompt_logprobs_last_n)

    def with_label(self, label: str, weight: float = 1.0) -> SamplingClient:
        """Return a client of the same sampling session whose samples are of another kind.

        When permits are scarce, kinds of traffic get them by their weights, whoever asks for more.

        Args:
            label: The kind, such as ``train`` or ``eval``.
            weight: What it gets beside other kinds; the same wherever the label is used.

        Raises:
            ValueError: The weight is not above 0, or the label is too long.
        """
        return self._with(label=label, weight=weight)

    def with_conversation(self, conversation: str) -> SamplingClient:
        """Return a client of the same sampling session for the turns of one conversation.

        On a cluster all of them are drawn by the same sampler, which is one client to the service,
        as long as it lives and has not much more to do than the others; so a service that keeps
        prompts' prefixes by client finds them again. In one process that is so anyway.

        Args:
            conversation: Names it; the same name means the same sampler in every process.

        Raises:
            ValueError: The name is too long.
        """
        return self._with(conversation=conversation)

    def get_base_model(self) -> str:
        """Return the name of the base model; asked once, if it is not known.

        Raises:
            APIError: The service refused or could not be reached.
        """
        if self._base_model is None:
            self._base_model = APIFuture.start(self._ask_base_model()).result()
        return self._base_model

    async def get_base_model_async(self) -> str:
        """Async twin of :meth:`get_base_model`."""
        if self._base_model is None:
            self._base_model = await APIFuture.start(self._ask_base_model())
        return self._base_model

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the base model's tokenizer.

        Raises:
            ConfigurationError: transformers is not installed.
        """
        return load_tokenizer(self.get_base_model())

    def get_telemetry(self) -> Telemetry | None:
        """Return what tells the service of events; None if it is not to be told."""
        return self._session.telemetry

    def get_sampler_handle(self) -> str:
        """Return a text by which another process makes a client of the same sampling session.

        It holds no credentials; upstream's SDK can read it, too.

        Raises:
            APIError: The service refused or could not be reached.
        """
        origin = copies.origin_of(self._session)
        return copies.encode_handle(
            origin,
            self.sampling_session_id,
            base_model=self.get_base_model(),
            record_stability_info=self.record_stability_info,
        )

    @staticmethod
    def from_sampler_handle(handle: str, *, api_key: str | None = None) -> SamplingClient:
        """Make a client of the sampling session behind a handle.

        Args:
            handle: From :meth:`get_sampler_handle`, of any process.
            api_key: Else this process's own.

        Raises:
            ValueError: That is no handle.
        """
        return copies.sampling_client_of(handle, api_key)

    def on_queue_state_change(
        self, queue_state: QueueState, queue_state_reason: str | None = None
    ) -> None:
        """Log why samples wait at the service, at most once a minute."""
        self._queue_log.on_state(queue_state.value, queue_state_reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what a copy in another process needs: no credentials.

        Raises:
            TinkerError: The client is being made, and that failed.
        """
        details = {
            "base_model": self._base_model,
            "record_stability_info": self.record_stability_info,
            "traffic": self.traffic,
        }
        return copies.sampling_client, (
            copies.origin_of(self._session),
            self.sampling_session_id,
            self.retry_config,
            details,
        )

    def _with(self, **changes: Any) -> SamplingClient:  # noqa: ANN401 - fields of the traffic
        """Return a client that differs in the kind of its samples.

        Raises:
            ValueError: A field is out of its range.
        """
        Traffic(**changes)
        if self._making is not None:
            return SamplingClient.promised(self._later_with(changes))
        return SamplingClient(
            self._session,
            self.sampling_session_id,
            self.retry_config,
            base_model=self._base_model,
            record_stability_info=self.record_stability_info,
            traffic=replace(self.traffic, **changes),
        )

    async def _later_with(self, changes: dict[str, Any]) -> SamplingClient:
        client = await self
        return client._with(**changes)  # noqa: SLF001 - its own class

    async def _sample(self, request: SampleRequest, carrier: dict[str, str]) -> SampleResponse:
        runtime = await self._session.runtime()
        return await runtime.sampling.sample(request, self.retry_config, carrier, self.traffic)

    async def _prompt_logprobs(
        self, request: SampleRequest, carrier: dict[str, str]
    ) -> list[float | None]:
        response = await self._sample(request, carrier)
        return response.prompt_logprobs or []

    async def _ask_base_model(self) -> str:
        runtime = await self._session.runtime()
        arguments = {"sampler_id": self.sampling_session_id}
        sampler = await runtime.registry.call("get_sampler", arguments)
        name: str = sampler.base_model
        return name

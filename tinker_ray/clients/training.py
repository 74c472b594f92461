"""``TrainingClient``: the operations on one model, in the order in which they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.order import Order
from tinker_ray.clients.ready import Ready
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.core.operation import (
    ForwardBackward,
    LoadState,
    OptimStep,
    SaveForSampler,
    SaveState,
)
from tinker_ray.errors import APIResponseValidationError
from tinker_ray.telemetry.carrier import inject
from tinker_ray.wire.chunking import join, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.port import TrainingPort
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.types import (
        AdamParams,
        Datum,
        ForwardBackwardOutput,
        GetInfoResponse,
        LoadWeightsResponse,
        LossFnType,
        OptimStepResponse,
        RetryConfig,
        SaveWeightsForSamplerResponse,
        SaveWeightsForSamplerResponseInternal,
        SaveWeightsResponse,
    )


class TrainingClient(Ready):
    """Trains one model. Made by :class:`ServiceClient`.

    Operations are applied in the order of the calls, whether or not their futures are awaited: so a
    forward_backward and the optim_step after it can be sent together.
    """

    def __init__(
        self, session: ClientSession, port: TrainingPort, model: ModelHandle, flags: ServerFlags
    ) -> None:
        self.model_id = model.model_id
        self._session = session
        self._port = port
        self._flags = flags
        self._order = Order(model.first_seq)

    def _shown(self) -> str:
        return repr(self.model_id)

    # --- computing ------------------------------------------------------------------------------

    def forward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute the loss and the logprobs of a batch, without gradients.

        Args:
            data: At least one datum.
            loss_fn: Name of the loss.
            loss_fn_config: Its settings, such as ``clip_low_threshold``.

        Raises:
            ValueError: ``data`` is empty.
            TinkerError: From the future: the request was refused or failed.
        """
        return self._batch(data, loss_fn, loss_fn_config, forward_only=True)

    async def forward_async(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Async twin of :meth:`forward`; gives the future once the operation has its place."""
        return self.forward(data, loss_fn, loss_fn_config)

    def forward_backward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute the loss of a batch and add its gradients to those accumulated so far.

        Args:
            data: At least one datum; more than the service takes at once are sent in parts, which
                add up to the same gradients, because losses are sums.
            loss_fn: Name of the loss.
            loss_fn_config: Its settings, such as ``clip_low_threshold``.

        Raises:
            ValueError: ``data`` is empty.
            TinkerError: From the future: the request was refused or failed.
        """
        return self._batch(data, loss_fn, loss_fn_config, forward_only=False)

    async def forward_backward_async(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Async twin of :meth:`forward_backward`; gives the future once it has its place."""
        return self.forward_backward(data, loss_fn, loss_fn_config)

    def optim_step(self, adam_params: AdamParams) -> APIFuture[OptimStepResponse]:
        """Apply the accumulated gradients and clear them.

        Raises:
            TinkerError: From the future: the request was refused or failed.
        """
        return self._start(OptimStep(self._one(), adam_params))

    async def optim_step_async(self, adam_params: AdamParams) -> APIFuture[OptimStepResponse]:
        """Async twin of :meth:`optim_step`; gives the future once the operation has its place."""
        return self.optim_step(adam_params)

    # --- saving and loading ---------------------------------------------------------------------

    def save_state(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsResponse]:
        """Save weights and optimizer state as ``tinker://<model>/weights/<name>``.

        Args:
            name: Unique among the model's states.
            ttl_seconds: When the service may delete it; None keeps it.
            overwrite: Replace a state of the same name.
            user_metadata: Kept with the checkpoint.

        Raises:
            TinkerError: From the future: the name is taken, or the save failed.
        """
        return self._start(SaveState(self._one(), name, ttl_seconds, overwrite, user_metadata))

    async def save_state_async(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsResponse]:
        """Async twin of :meth:`save_state`; gives the future once the operation has its place."""
        return self.save_state(name, ttl_seconds, overwrite, user_metadata)

    def load_state(self, path: str) -> APIFuture[LoadWeightsResponse]:
        """Load the weights of a checkpoint; the optimizer starts fresh.

        Raises:
            TinkerError: From the future: the path does not exist or does not fit the model.
        """
        return self._start(LoadState(self._one(), path, optimizer=False))

    async def load_state_async(self, path: str) -> APIFuture[LoadWeightsResponse]:
        """Async twin of :meth:`load_state`; gives the future once the operation has its place."""
        return self.load_state(path)

    def load_state_with_optimizer(self, path: str) -> APIFuture[LoadWeightsResponse]:
        """Load the weights and the optimizer state of a checkpoint.

        Raises:
            TinkerError: From the future: the path does not exist or does not fit the model.
        """
        return self._start(LoadState(self._one(), path, optimizer=True))

    async def load_state_with_optimizer_async(self, path: str) -> APIFuture[LoadWeightsResponse]:
        """Async twin of :meth:`load_state_with_optimizer`."""
        return self.load_state_with_optimizer(path)

    def save_weights_for_sampler(
        self,
        name: str,
        ttl_seconds: int | None = None,
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Save the weights for sampling as ``tinker://<model>/sampler_weights/<name>``.

        Raises:
            TinkerError: From the future: the name is taken, or the save failed.
        """
        return self._start(SaveForSampler(self._one(), name, None, ttl_seconds, user_metadata))

    async def save_weights_for_sampler_async(
        self,
        name: str,
        ttl_seconds: int | None = None,
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Async twin of :meth:`save_weights_for_sampler`."""
        return self.save_weights_for_sampler(name, ttl_seconds, user_metadata)

    # --- clients --------------------------------------------------------------------------------

    def create_sampling_client(
        self, model_path: str, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Sample from a saved checkpoint.

        Raises:
            APIStatusError: The path does not exist.
        """
        work = open_sampling_client(self._session, None, model_path, retry_config)
        return APIFuture.start(work).result()

    async def create_sampling_client_async(
        self, model_path: str, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Async twin of :meth:`create_sampling_client`."""
        work = open_sampling_client(self._session, None, model_path, retry_config)
        return await APIFuture.start(work)

    def save_weights_and_get_sampling_client(
        self, name: str | None = None, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Sample from the weights as they are after all operations called so far.

        Args:
            name: Ignored, as upstream does; use :meth:`save_weights_for_sampler` to keep a
                checkpoint.
            retry_config: How the client repeats lost samples.

        Raises:
            TinkerError: The snapshot failed.
        """
        del name
        return self._snapshot(retry_config).result()

    async def save_weights_and_get_sampling_client_async(
        self, name: str | None = None, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Async twin of :meth:`save_weights_and_get_sampling_client`."""
        del name
        return await self._snapshot(retry_config)

    # --- asking ---------------------------------------------------------------------------------

    def get_info(self) -> GetInfoResponse:
        """Tell what the model is made of.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self._info()).result()

    async def get_info_async(self) -> GetInfoResponse:
        """Async twin of :meth:`get_info`."""
        return await APIFuture.start(self._info())

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the base model's tokenizer, from where the service says that it is.

        Raises:
            ConfigurationError: transformers is not installed.
        """
        data = self.get_info().model_data
        return load_tokenizer(data.model_name or "", data.tokenizer_id)

    # --- inside ---------------------------------------------------------------------------------

    def _one(self) -> int:
        return self._order.take()[0]

    def _start(self, operation: Operation) -> APIFuture[Any]:
        return APIFuture.start_detached(self._run(operation, inject()))

    async def _run(self, operation: Operation, carrier: dict[str, str]) -> Any:  # noqa: ANN401
        try:
            return await self._port.run(operation, self._order.floor, carrier)
        finally:
            self._order.close(operation.seq)

    def _batch(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None,
        *,
        forward_only: bool,
    ) -> APIFuture[ForwardBackwardOutput]:
        if not data:
            message = "no data: forward and forward_backward need at least one datum"
            raise ValueError(message)
        parts = split(data, self._flags.chunks)
        config = dict(loss_fn_config or {})
        futures = [
            self._start(ForwardBackward(seq, part, loss_fn, config, forward_only))
            for seq, part in zip(self._order.take(len(parts)), parts, strict=True)
        ]
        return APIFuture.start(_joined(futures, [len(part) for part in parts]))

    def _snapshot(self, retry_config: RetryConfig | None) -> APIFuture[SamplingClient]:
        number = next(self._session.sampling_session_numbers)
        saved = self._start(SaveForSampler(self._one(), sampling_session_seq_id=number))
        return APIFuture.start(self._sampling_client(saved, retry_config))

    async def _sampling_client(
        self,
        saved: APIFuture[SaveWeightsForSamplerResponseInternal],
        retry_config: RetryConfig | None,
    ) -> SamplingClient:
        response = await saved
        if response.sampling_session_id is None:
            message = "the service's answer to the snapshot names no sampling session"
            raise APIResponseValidationError(message, body=response.model_dump())
        return SamplingClient(self._session, response.sampling_session_id, retry_config)

    async def _info(self) -> GetInfoResponse:
        runtime = await self._session.runtime()
        info: GetInfoResponse = await runtime.registry.call("get_info", {"model_id": self.model_id})
        return info


async def _joined(
    futures: list[APIFuture[ForwardBackwardOutput]], counts: list[int]
) -> ForwardBackwardOutput:
    return join([await future for future in futures], counts)


async def open_sampling_client(
    session: ClientSession,
    base_model: str | None,
    model_path: str | None,
    retry_config: RetryConfig | None,
) -> SamplingClient:
    """Open a sampling session on a base model or a checkpoint. Runs on the bridge.

    Raises:
        ValueError: Neither is given, or the path is no ``tinker://`` path.
        APIStatusError: The service knows neither.
    """
    if base_model is None and model_path is None:
        message = "create_sampling_client needs model_path or base_model"
        raise ValueError(message)
    if model_path is not None and not model_path.startswith("tinker://"):
        message = f"model_path={model_path!r} must start with tinker://"
        raise ValueError(message)
    runtime = await session.runtime()
    number = next(session.sampling_session_numbers)
    sampling_session_id = await runtime.session.create_sampling_session(
        number, base_model=base_model, model_path=model_path
    )
    return SamplingClient(session, sampling_session_id, retry_config)

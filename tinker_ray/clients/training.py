"""``TrainingClient``: the operations on one model, in the order in which they are called."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from tinker_ray.clients import copies
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.attribution import attributed
from tinker_ray.clients.console import training_run_console_url
from tinker_ray.clients.custom_loss import run_custom_loss
from tinker_ray.clients.far_training import FarTraining
from tinker_ray.clients.holder import Holder, QueueStateObserver
from tinker_ray.clients.loss_handle import LossHandle
from tinker_ray.clients.operations import Operations
from tinker_ray.clients.ready import Ready
from tinker_ray.clients.sampler_making import open_sampler
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.clients.training_state import TrainingState
from tinker_ray.core.operation import OptimStep, SaveForSampler
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.errors import APIResponseValidationError, StaleHandleError
from tinker_ray.types import AdamParams
from tinker_ray.types.optimizer import OptimParamsBase

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from tinker_ray.clients.session import ClientSession
    from tinker_ray.clients.telemetry import Telemetry
    from tinker_ray.core.custom_loss import CustomLossFnV1
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.operation import SamplerKind
    from tinker_ray.core.port import TrainingPort
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.types import (
        Datum,
        ForwardBackwardOutput,
        GetInfoResponse,
        LossFnType,
        OptimParams,
        OptimStepResponse,
        QueueState,
        RetryConfig,
        SaveWeightsForSamplerResponseInternal,
    )


@attributed
class TrainingClient(FarTraining, TrainingState, Ready, QueueStateObserver):
    """Trains one model. Made by :class:`ServiceClient`.

    Operations are applied in the order of the calls, whether or not their futures are awaited: so a
    forward_backward and the optim_step after it can be sent together. Cancelling a future, or
    giving up the wait for it, leaves its operation running.

    On a Ray cluster it can be pickled, and passed to other processes: the operations of all copies
    are applied in the order of their arrival, each copy's own in the order of its calls. Those of
    others may come between the two passes of a custom loss.

    Attributes:
        model_id: The model, which is also the training run.
        holder: What is behind all clients of the session.
    """

    def __init__(
        self, session: ClientSession, port: TrainingPort, model: ModelHandle, flags: ServerFlags
    ) -> None:
        self.model_id = model.model_id
        self.holder = Holder(session)
        self._session = session
        self._operations = Operations(
            port,
            model.first_seq,
            flags.chunks,
            lambda: session.number("sampling_session"),
            self._tell,
        )
        self._info: GetInfoResponse | None = None
        self._queue_log = QueueLog.of_training(f"model {model.model_id}", time.monotonic)

    def _shown(self) -> str:
        return repr(self.model_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what a copy in another process needs: no credentials.

        Raises:
            ConfigurationError: The model is trained from this process, not through an actor.
        """
        return copies.training_client, copies.training_state(
            self._session, self._operations, self.model_id
        )

    def get_console_url(self) -> str:
        """Return where the hosted service shows the training run."""
        return training_run_console_url(self.model_id)

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
        return self._operations.batch(data, loss_fn, loss_fn_config, forward_only=True)

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
        return self._operations.batch(data, loss_fn, loss_fn_config, forward_only=False)

    async def forward_backward_async(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Async twin of :meth:`forward_backward`; gives the future once it has its place."""
        return self.forward_backward(data, loss_fn, loss_fn_config)

    def forward_backward_custom(
        self,
        data: Sequence[Datum],
        loss_fn: CustomLossFnV1 | LossHandle,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Add the gradients of a loss of your own, a function of the batch's logprobs.

        Takes two requests, forward and backward, with ``loss_fn`` in between, in a thread of this
        process. What is called afterwards is applied afterwards. If it fails, operations that wait
        behind it and all later ones of this client raise :class:`PoisonedClientError`: they counted
        on its gradients.

        Args:
            data: At least one datum, each with ``target_tokens``, ``(T,)`` or ``(T, K)``.
            loss_fn: Takes the data and their logprobs, one float32 tensor per datum of the shape of
                its targets; returns the loss, a scalar tensor that depends on all of them, and a
                mapping of metrics. Or a loss made with ``ServiceClient.create_custom_loss``.
            loss_type_input: Only ``logprobs``, which is what every loss gets.

        Returns:
            The logprobs and metrics: ``loss:sum`` is your loss; ``surrogate_loss:sum``, the value
            of the linear loss that carried its gradient, means nothing by itself.

        Raises:
            ValueError: ``data`` is empty, a datum lacks what the loss reads, or the loss is of
                another session; from the future: it does not depend on every datum's logprobs.
            ConfigurationError: torch is not installed.
            TinkerError: From the future: a request was refused or failed.
        """
        if loss_type_input not in {None, "logprobs"}:
            message = f"loss_type_input={loss_type_input!r}: a loss is given logprobs, drop it"
            raise ValueError(message)
        if isinstance(loss_fn, LossHandle):
            loss_fn.check(self.holder.get_session_id(), data)
            if loss_fn.loss_id is not None:
                return self.forward_backward(data, "custom", {"loss_id": loss_fn.loss_id})
        return run_custom_loss(self._operations, data, loss_fn)

    async def forward_backward_custom_async(
        self,
        data: Sequence[Datum],
        loss_fn: CustomLossFnV1 | LossHandle,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Async twin of :meth:`forward_backward_custom`; gives the future at once."""
        return self.forward_backward_custom(data, loss_fn, loss_type_input=loss_type_input)

    def optim_step(
        self, optim_params: OptimParams | None = None, *, adam_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        """Apply the accumulated gradients and clear them.

        Args:
            optim_params: Of the optimizer with which the model was made.
            adam_params: The same, by its older name.

        Raises:
            ValueError: Both are given.
            TypeError: Neither is given, or something else.
            TinkerError: From the future: the request was refused or failed.
        """
        params = _one_of(optim_params, adam_params)
        return self._operations.start(lambda seq: OptimStep(seq, params))

    async def optim_step_async(
        self, optim_params: OptimParams | None = None, *, adam_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        """Async twin of :meth:`optim_step`; gives the future once the operation has its place."""
        return self.optim_step(optim_params, adam_params=adam_params)

    # --- clients --------------------------------------------------------------------------------

    def create_sampling_client(
        self,
        model_path: str,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
    ) -> SamplingClient:
        """Sample from a saved checkpoint.

        Args:
            model_path: ``tinker://…``
            retry_config: How the client repeats lost samples.
            record_stability_info: Let the service keep what StableReinforce needs of the samples.

        Raises:
            ValueError: The path is no ``tinker://`` path.
            APIStatusError: The path does not exist.
        """
        return open_sampler(
            self._session,
            base_model=None,
            model_path=model_path,
            retry_config=retry_config,
            record_stability_info=record_stability_info,
        )

    async def create_sampling_client_async(
        self,
        model_path: str,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
    ) -> SamplingClient:
        """Async twin of :meth:`create_sampling_client`."""
        return await self.create_sampling_client(model_path, retry_config, record_stability_info)

    def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        kind: SamplerKind = "snapshot",
    ) -> SamplingClient:
        """Sample from the weights as they are after all operations called so far.

        Args:
            name: Ignored, as upstream does; use :meth:`save_weights_for_sampler` to keep a
                checkpoint.
            retry_config: How the client repeats lost samples.
            record_stability_info: Let the service keep what StableReinforce needs of the samples.
            kind: ``inflight`` shares one target of weights among the model's samplers, which later
                saves replace under them; ``snapshot`` binds the client to these weights.

        Raises:
            TinkerError: The snapshot failed.
        """
        del name
        return SamplingClient.promised(self._snapshot(retry_config, record_stability_info, kind))

    async def save_weights_and_get_sampling_client_async(
        self,
        name: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        kind: SamplerKind = "snapshot",
    ) -> SamplingClient:
        """Async twin of :meth:`save_weights_and_get_sampling_client`."""
        return await self.save_weights_and_get_sampling_client(
            name, retry_config, record_stability_info, kind
        )

    def save_weights_and_get_sampling_client_submit(
        self, retry_config: RetryConfig | None = None
    ) -> APIFuture[SamplingClient]:
        """Do as :meth:`save_weights_and_get_sampling_client`, and return a future at once."""
        return APIFuture.start(self._snapshot(retry_config))

    # --- asking ---------------------------------------------------------------------------------

    def get_info(self) -> GetInfoResponse:
        """Tell what the model is made of: asked once, as it does not change.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self._ask()).result() if self._info is None else self._info

    async def get_info_async(self) -> GetInfoResponse:
        """Async twin of :meth:`get_info`."""
        return await APIFuture.start(self._ask()) if self._info is None else self._info

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the base model's tokenizer, from where the service says that it is.

        Raises:
            ConfigurationError: transformers is not installed.
        """
        data = self.get_info().model_data
        return load_tokenizer(data.model_name or "", data.tokenizer_id)

    def on_queue_state_change(
        self, queue_state: QueueState, queue_state_reason: str | None = None
    ) -> None:
        """Log why operations wait at the service: after a quarter of an hour, once a minute."""
        self._queue_log.on_state(queue_state.value, queue_state_reason)

    def get_telemetry(self) -> Telemetry | None:
        """Return what tells the service of events; None if it is not to be told."""
        return self._session.telemetry

    # --- inside ---------------------------------------------------------------------------------

    def _snapshot(
        self,
        retry_config: RetryConfig | None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - internal
        kind: SamplerKind = "snapshot",
    ) -> Coroutine[Any, Any, SamplingClient]:
        """Take the place of the snapshot now, and return what waits for it."""
        saved: APIFuture[SaveWeightsForSamplerResponseInternal] = self._operations.start(
            lambda seq: SaveForSampler(seq, kind=kind)
        )

        async def client() -> SamplingClient:
            response = await saved
            if response.sampling_session_id is None:
                message = "the service's answer to the snapshot names no sampling session"
                raise APIResponseValidationError(message, body=response.model_dump())
            return SamplingClient(
                self._session,
                response.sampling_session_id,
                retry_config,
                base_model=None if self._info is None else self._info.model_data.model_name,
                record_stability_info=record_stability_info,
            )

        return client()

    def _tell(self, failure: Exception) -> None:
        telemetry = self.get_telemetry()
        if telemetry is not None and not isinstance(failure, StaleHandleError):
            telemetry.log_exception_sync(failure)

    async def _ask(self) -> GetInfoResponse:
        runtime = await self._session.runtime()
        info: GetInfoResponse = await runtime.registry.call("get_info", {"model_id": self.model_id})
        self._info = info
        return info


def _one_of(optim_params: OptimParams | None, adam_params: AdamParams | None) -> OptimParams:
    if optim_params is not None and adam_params is not None:
        message = "optim_step takes optim_params or its older name adam_params, not both"
        raise ValueError(message)
    params = adam_params if optim_params is None else optim_params
    if not isinstance(params, AdamParams | OptimParamsBase):
        message = f"optim_step({params!r}): pass AdamParams, or the parameters of your optimizer"
        raise TypeError(message)
    return params

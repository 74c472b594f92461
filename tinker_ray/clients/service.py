"""``ServiceClient``: the door to a service; it makes all other clients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from tinker_ray.clients import copies
from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.attribution import attributed
from tinker_ray.clients.console import session_console_url, sessions_console_url
from tinker_ray.clients.holder import Holder
from tinker_ray.clients.loss_handle import open_custom_loss
from tinker_ray.clients.model_making import ModelMaking
from tinker_ray.clients.options import settings_of
from tinker_ray.clients.rest import RestClient
from tinker_ray.clients.sampler_making import open_sampler
from tinker_ray.clients.session import ClientSession
from tinker_ray.limits.spend import Spend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tinker_ray.budget import Budget
    from tinker_ray.clients.loss_handle import LossHandle, PerDatumLossFn
    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.clients.telemetry import Telemetry
    from tinker_ray.types import (
        CustomLossInputRank,
        GetServerCapabilitiesResponse,
        RetryConfig,
    )

CloseStatus: TypeAlias = Literal["success", "errored", "interrupted"]


@attributed
class ServiceClient(ModelMaking):
    """A session with a Tinker service: the hosted one, an embedded engine, or any other.

    Nothing is opened before the first use, and no session before something is made in it. Close it,
    or use it in a ``with`` or ``async with`` block, to finish the session; what is still open when
    the process ends is closed then. Dropping it closes nothing: the clients that it made live on.

    It can be pickled, and passed to any process that has credentials of its own. On a Ray cluster
    the copies make things in the same session, which ends with this one; elsewhere each copy opens
    a session of its own.

    Args:
        user_metadata: Kept with the session.
        project_id: Where the session belongs; else ``TINKER_PROJECT_ID``.
        display_name: Of the session, for people.
        base_url: The service; ``embedded`` or ``embedded:MODEL`` starts or finds an engine on this
            machine. Else ``TINKER_BASE_URL``, else the hosted service.
        api_key: Else ``TINKER_API_KEY``, else a credential command or a stored key.
        default_headers_overrides: Sent with every request. Only those whose names do not look
            secret reach other processes.
        budget: What the samples of the session may cost, on all processes of a cluster together.
        kwargs: Of the older generation: ``timeout`` in seconds, ``max_retries`` of one request,
            ``default_headers`` and ``default_query``. Others are ignored, with a warning.

    Raises:
        ConfigurationError: A setting cannot work.
    """

    def __init__(  # noqa: PLR0913 - upstream's signature
        self,
        user_metadata: Mapping[str, str] | None = None,
        project_id: str | None = None,
        *,
        display_name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        default_headers_overrides: Mapping[str, str] | None = None,
        budget: Budget | None = None,
        **kwargs: Any,  # noqa: ANN401 - see above
    ) -> None:
        settings = settings_of(
            base_url=base_url,
            api_key=api_key,
            project_id=project_id,
            default_headers_overrides=default_headers_overrides,
            **kwargs,
        )
        settings = replace(settings, budget=budget)
        self._adopt(ClientSession(settings, user_metadata, display_name=display_name))

    @classmethod
    def over(cls, session: ClientSession) -> Self:
        """Make the client of a session that was made elsewhere."""
        client = cls.__new__(cls)
        client._adopt(session)  # noqa: SLF001 - its own
        return client

    def _adopt(self, session: ClientSession) -> None:
        self._session = session
        session.close_at_exit()

    def __repr__(self) -> str:
        """Show the service."""
        return f"ServiceClient({self._session!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what a copy in another process needs: no credentials.

        Raises:
            APIError: The session had to be opened for that, and the service refused.
        """
        return copies.service_client, (copies.service_state(self._session),)

    @property
    def holder(self) -> Holder:
        """What is behind all clients of the session."""
        return Holder(self._session)

    # --- life -----------------------------------------------------------------------------------

    def close(self, status: CloseStatus = "success", detail: str | None = None) -> APIFuture[None]:
        """Finish the session and everything that it opened; idempotent.

        Args:
            status: How it ended.
            detail: For people.

        Returns:
            A future that is done: upstream's scripts await it or ask for its result.
        """
        self._session.close(status, detail)
        return APIFuture.of(None)

    async def close_async(self, status: CloseStatus = "success", detail: str | None = None) -> None:
        """Async twin of :meth:`close`."""
        await APIFuture.start(self._session.aclose(status, detail))

    def __enter__(self) -> Self:
        """Give the client."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and tell the service how it ended."""
        self.close(_status(exc_type), exc_type.__name__ if exc_type else None)

    async def __aenter__(self) -> Self:
        """Give the client."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and tell the service how it ended."""
        detail = exc_type.__name__ if exc_type else None
        await self.close_async(_status(exc_type), detail)

    def raise_budget(
        self, *, max_tokens: int | None = None, max_cost: float | None = None
    ) -> APIFuture[None]:
        """Allow the samples of the session to cost more; those that wait for it go on.

        Args:
            max_tokens: In all, since the session began; None leaves it, as does a lower number.
            max_cost: The same of money.

        Raises:
            ConfigurationError: The session has no budget.
        """
        limit = Spend(max_tokens or 0, max_cost or 0.0)

        async def raise_it() -> None:
            await (await self._session.runtime()).raise_budget(limit)

        return APIFuture.start(raise_it())

    # --- other clients --------------------------------------------------------------------------

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
    ) -> SamplingClient:
        """Sample from a checkpoint (``tinker://…``) or from a base model.

        Args:
            model_path: The checkpoint.
            base_model: One that the service offers.
            retry_config: How lost samples are repeated.
            record_stability_info: Let the service keep what StableReinforce needs of the samples.

        Raises:
            ValueError: Neither is given.
            TinkerError: The service knows neither. Where an event loop runs, awaiting or using the
                client raises it.
        """
        return open_sampler(
            self._session,
            base_model=base_model,
            model_path=model_path,
            retry_config=retry_config,
            record_stability_info=record_stability_info,
        )

    async def create_sampling_client_async(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
    ) -> SamplingClient:
        """Async twin of :meth:`create_sampling_client`."""
        return await self.create_sampling_client(
            model_path, base_model, retry_config, record_stability_info
        )

    def create_rest_client(self) -> RestClient:
        """Look at what the service keeps; opens no session."""
        return RestClient(self._session)

    def create_custom_loss(
        self, fn: PerDatumLossFn, input_ranks: Mapping[str, CustomLossInputRank]
    ) -> APIFuture[LossHandle]:
        """Make a loss of your own for ``TrainingClient.forward_backward_custom``.

        The function is traced once. Where the service runs such losses, it is uploaded; elsewhere
        it runs in this process, under the same rules: torch and math only, no branches on values.

        Args:
            fn: Takes the logprobs of a datum, then the ``loss_fn_inputs`` that it reads by the
                names of its parameters; returns a scalar loss and scalar metrics named
                ``custom/<name>:sum`` or ``custom/<name>:mean``. Losses of datums are summed.
            input_ranks: The rank of each parameter: 0 for a scalar, 1 for ``(T,)``, 2 for
                ``(T, K)``.

        Raises:
            ValueError: The function breaks the rules; from the future: the session has this loss.
            ConfigurationError: torch is not installed.
            TinkerError: From the future: the service refused the loss.
        """
        return open_custom_loss(self._session, fn, input_ranks)

    def copy_weights(
        self,
        path: str,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> APIFuture[str]:
        """Copy a checkpoint into this client's project; gives the path of the copy.

        Args:
            path: ``tinker://…``
            ttl_seconds: When the copy expires; None for never.
            weights_access_token: Lets this account read a checkpoint of another one. It stays in
                this process, on a cluster too.

        Raises:
            ValueError: The client has no project.
        """
        return self.create_rest_client().copy_weights(
            path,
            self._session.settings.project_id,
            ttl_seconds=ttl_seconds,
            weights_access_token=weights_access_token,
        )

    def get_telemetry(self) -> Telemetry | None:
        """Return what tells the service of events; None if it is not to be told."""
        return self._session.telemetry

    # --- asking ---------------------------------------------------------------------------------

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Tell which base models the service offers; opens no session.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return self.create_rest_client().get_server_capabilities().result()

    async def get_server_capabilities_async(self) -> GetServerCapabilitiesResponse:
        """Async twin of :meth:`get_server_capabilities`."""
        return await self.create_rest_client().get_server_capabilities()

    def get_console_url(self) -> str:
        """Return where the hosted service shows the session, or all of them if it is not open."""
        runtime = self._session.opened
        return (
            sessions_console_url() if runtime is None else session_console_url(runtime.session_id)
        )


def _status(exception_type: type[BaseException] | None) -> CloseStatus:
    if exception_type is None:
        return "success"
    return "errored" if issubclass(exception_type, Exception) else "interrupted"

"""``ServiceClient``: the door to a service; it makes all other clients."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Self

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.rest import RestClient
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.clients.training import TrainingClient, open_sampling_client
from tinker_ray.config import Settings
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tinker_ray.core.session import ModelHandle
    from tinker_ray.types import GetServerCapabilitiesResponse, RetryConfig


class ServiceClient:
    """A session with a Tinker service: the hosted one, an embedded engine, or any other.

    Nothing is opened before the first use. Close it, or use it in a ``with`` or ``async with``
    block, to finish the session; what is still open when the process ends is closed then. Dropping
    it closes nothing: the clients that it made live on.

    Args:
        user_metadata: Kept with the session.
        base_url: The service; ``embedded`` or ``embedded:MODEL`` starts or finds an engine on this
            machine. Else ``TINKER_BASE_URL``, else the hosted service.
        api_key: Else ``TINKER_API_KEY``.

    Raises:
        ConfigurationError: A ``TINKER_RAY_*`` variable has a value that cannot work.
    """

    def __init__(
        self,
        user_metadata: Mapping[str, str] | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        settings = Settings.from_env(base_url=base_url, api_key=api_key)
        self._adopt(ClientSession(settings, user_metadata))

    @classmethod
    def over(cls, session: ClientSession) -> Self:
        """Make the client of a session that was made elsewhere."""
        client = cls.__new__(cls)
        client._adopt(session)  # noqa: SLF001 - its own
        return client

    def _adopt(self, session: ClientSession) -> None:
        self._session = session
        atexit.register(self._session.close, "success")

    def __repr__(self) -> str:
        """Show the service."""
        return f"ServiceClient({self._session!r})"

    # --- life -----------------------------------------------------------------------------------

    def close(self, status: str = "success", detail: str | None = None) -> APIFuture[None]:
        """Finish the session and everything that it opened; idempotent.

        Args:
            status: ``success``, ``errored`` or ``interrupted``.
            detail: For people.

        Returns:
            A future that is done: upstream's scripts await it or ask for its result.
        """
        atexit.unregister(self._session.close)
        self._session.close(status, detail)
        return APIFuture.of(None)

    async def close_async(self, status: str = "success", detail: str | None = None) -> None:
        """Async twin of :meth:`close`."""
        atexit.unregister(self._session.close)
        await APIFuture.start(self._session.aclose(status, detail))

    def __enter__(self) -> Self:
        """Give the client."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and tell the service how it ended."""
        self.close(_status(exception_type), exception_type.__name__ if exception_type else None)

    async def __aenter__(self) -> Self:
        """Give the client."""
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and tell the service how it ended."""
        detail = exception_type.__name__ if exception_type else None
        await self.close_async(_status(exception_type), detail)

    # --- training clients -----------------------------------------------------------------------

    def create_lora_training_client(  # noqa: PLR0913 - upstream's signature
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
        train_attn: bool = True,  # noqa: FBT001, FBT002
        train_unembed: bool = True,  # noqa: FBT001, FBT002
        user_metadata: Mapping[str, str] | None = None,
    ) -> TrainingClient:
        """Make a new model: a base model with a LoRA adapter to train.

        Args:
            base_model: One that the service offers.
            rank: Of the adapter.
            seed: For its initial weights.
            train_mlp: Adapt the MLP blocks.
            train_attn: Adapt the attention blocks.
            train_unembed: Adapt the output layer.
            user_metadata: Kept with the training run.

        Raises:
            ValueError: The rank is not positive, or nothing is to be trained.
            TinkerError: The service refused, for example because it does not know the base model.
        """
        lora = _lora(rank, seed, train_mlp, train_attn, train_unembed)
        return TrainingClient.promised(self._create_model(base_model, lora, user_metadata))

    async def create_lora_training_client_async(  # noqa: PLR0913 - upstream's signature
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
        train_attn: bool = True,  # noqa: FBT001, FBT002
        train_unembed: bool = True,  # noqa: FBT001, FBT002
        user_metadata: Mapping[str, str] | None = None,
    ) -> TrainingClient:
        """Async twin of :meth:`create_lora_training_client`."""
        lora = _lora(rank, seed, train_mlp, train_attn, train_unembed)
        return await APIFuture.start(self._create_model(base_model, lora, user_metadata))

    def create_training_client_from_state(
        self, path: str, user_metadata: Mapping[str, str] | None = None
    ) -> TrainingClient:
        """Make a new model with the weights of a saved state and a fresh optimizer.

        Raises:
            TinkerError: The service refused, for example because the path does not exist.
        """
        return TrainingClient.promised(self._load_model(path, user_metadata, optimizer=False))

    async def create_training_client_from_state_async(
        self, path: str, user_metadata: Mapping[str, str] | None = None
    ) -> TrainingClient:
        """Async twin of :meth:`create_training_client_from_state`."""
        return await APIFuture.start(self._load_model(path, user_metadata, optimizer=False))

    def create_training_client_from_state_with_optimizer(
        self, path: str, user_metadata: Mapping[str, str] | None = None
    ) -> TrainingClient:
        """Make a new model that goes on exactly where a saved state was.

        Raises:
            TinkerError: The service refused, for example because the path does not exist.
        """
        return TrainingClient.promised(self._load_model(path, user_metadata, optimizer=True))

    async def create_training_client_from_state_with_optimizer_async(
        self, path: str, user_metadata: Mapping[str, str] | None = None
    ) -> TrainingClient:
        """Async twin of :meth:`create_training_client_from_state_with_optimizer`."""
        return await APIFuture.start(self._load_model(path, user_metadata, optimizer=True))

    # --- other clients --------------------------------------------------------------------------

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
    ) -> SamplingClient:
        """Sample from a checkpoint (``tinker://…``) or from a base model.

        Raises:
            ValueError: Neither is given.
            TinkerError: The service knows neither.
        """
        work = open_sampling_client(self._session, base_model, model_path, retry_config)
        return SamplingClient.promised(work)

    async def create_sampling_client_async(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
    ) -> SamplingClient:
        """Async twin of :meth:`create_sampling_client`."""
        work = open_sampling_client(self._session, base_model, model_path, retry_config)
        return await APIFuture.start(work)

    def create_rest_client(self) -> RestClient:
        """Look at what the service keeps."""
        return RestClient(self._session)

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Tell which base models the service offers.

        Raises:
            APIError: The service refused or could not be reached.
        """
        return APIFuture.start(self._capabilities()).result()

    async def get_server_capabilities_async(self) -> GetServerCapabilitiesResponse:
        """Async twin of :meth:`get_server_capabilities`."""
        return await APIFuture.start(self._capabilities())

    # --- inside ---------------------------------------------------------------------------------

    async def _create_model(
        self, base_model: str, lora: LoraConfig, user_metadata: Mapping[str, str] | None
    ) -> TrainingClient:
        runtime = await self._session.runtime()
        number = next(self._session.model_numbers)
        model = await runtime.session.create_model(number, base_model, lora, user_metadata)
        return await self._training_client(model)

    async def _load_model(
        self, path: str, user_metadata: Mapping[str, str] | None, *, optimizer: bool
    ) -> TrainingClient:
        runtime = await self._session.runtime()
        number = next(self._session.model_numbers)
        model = await runtime.session.create_model_from_state(
            number, path, optimizer=optimizer, user_metadata=user_metadata
        )
        return await self._training_client(model)

    async def _training_client(self, model: ModelHandle) -> TrainingClient:
        runtime = await self._session.runtime()
        port = await runtime.open_training(model)
        return TrainingClient(self._session, port, model, runtime.flags)

    async def _capabilities(self) -> GetServerCapabilitiesResponse:
        runtime = await self._session.runtime()
        return await runtime.session.get_server_capabilities()


def _lora(
    rank: int,
    seed: int | None,
    train_mlp: bool,  # noqa: FBT001 - mirrors the public signature
    train_attn: bool,  # noqa: FBT001
    train_unembed: bool,  # noqa: FBT001
) -> LoraConfig:
    if not (train_mlp or train_attn or train_unembed):
        message = "nothing to train: set train_mlp, train_attn or train_unembed"
        raise ValueError(message)
    return LoraConfig(
        rank=rank,
        seed=seed,
        train_mlp=train_mlp,
        train_attn=train_attn,
        train_unembed=train_unembed,
    )


def _status(exception_type: type[BaseException] | None) -> str:
    if exception_type is None:
        return "success"
    return "errored" if issubclass(exception_type, Exception) else "interrupted"

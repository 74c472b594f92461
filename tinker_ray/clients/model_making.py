"""The calls of ``ServiceClient`` that make models to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinker_ray.clients.training import TrainingClient
from tinker_ray.config import Secret
from tinker_ray.types import LoraConfig

if TYPE_CHECKING:
    from tinker_ray.clients.session import ClientSession
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.types import OptimizerConfig


class ModelMaking:
    """A part of :class:`tinker_ray.clients.service.ServiceClient`."""

    _session: ClientSession

    def create_lora_training_client(  # noqa: PLR0913 - upstream's signature
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
        train_attn: bool = True,  # noqa: FBT001, FBT002
        train_unembed: bool = True,  # noqa: FBT001, FBT002
        user_metadata: Mapping[str, str] | None = None,
        optimizer: OptimizerConfig | None = None,
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
            optimizer: The model's, for its whole life; None is AdamW.

        Raises:
            ValueError: The rank is not positive, or nothing is to be trained.
            TinkerError: The service refused, for example because it does not know the base model.
                Where an event loop runs, awaiting or using the client raises it.
        """
        lora = _lora(rank, seed, train_mlp, train_attn, train_unembed)
        work = self._create_model(base_model, lora, user_metadata, optimizer)
        return TrainingClient.promised(work)

    async def create_lora_training_client_async(  # noqa: PLR0913 - upstream's signature
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
        train_attn: bool = True,  # noqa: FBT001, FBT002
        train_unembed: bool = True,  # noqa: FBT001, FBT002
        user_metadata: Mapping[str, str] | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Async twin of :meth:`create_lora_training_client`."""
        lora = _lora(rank, seed, train_mlp, train_attn, train_unembed)
        return await TrainingClient.promised(
            self._create_model(base_model, lora, user_metadata, optimizer)
        )

    def create_training_client_from_state(
        self,
        path: str,
        base_model: str | Mapping[str, str] | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Make a new model with the weights of a saved state and a fresh optimizer.

        Args:
            path: ``tinker://…/weights/…``
            base_model: Another base model than the state's, which has to fit it. A mapping in this
                place is ``user_metadata``, as in the older generation.
            user_metadata: Kept with the training run.
            weights_access_token: Lets this account read a state of another one. It stays in this
                process, on a cluster too.
            optimizer: The model's, for its whole life; None is AdamW.

        Raises:
            TinkerError: The service refused, for example because the path does not exist. Where an
                event loop runs, awaiting or using the client raises it.
        """
        base_model, user_metadata = _second(base_model, user_metadata)
        work = self._load_model(
            path, base_model, user_metadata, weights_access_token, optimizer, with_optimizer=False
        )
        return TrainingClient.promised(work)

    async def create_training_client_from_state_async(
        self,
        path: str,
        base_model: str | Mapping[str, str] | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Async twin of :meth:`create_training_client_from_state`."""
        return await self.create_training_client_from_state(
            path, base_model, user_metadata, weights_access_token, optimizer
        )

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | Mapping[str, str] | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Make a new model that goes on exactly where a saved state was.

        The arguments are those of :meth:`create_training_client_from_state`.

        Raises:
            TinkerError: The service refused, for example because the path does not exist. Where an
                event loop runs, awaiting or using the client raises it.
        """
        base_model, user_metadata = _second(base_model, user_metadata)
        work = self._load_model(
            path, base_model, user_metadata, weights_access_token, None, with_optimizer=True
        )
        return TrainingClient.promised(work)

    async def create_training_client_from_state_with_optimizer_async(
        self,
        path: str,
        base_model: str | Mapping[str, str] | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Async twin of :meth:`create_training_client_from_state_with_optimizer`."""
        return await self.create_training_client_from_state_with_optimizer(
            path, base_model, user_metadata, weights_access_token
        )

    # --- inside ---------------------------------------------------------------------------------

    async def _create_model(
        self,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None,
        optimizer: OptimizerConfig | None,
    ) -> TrainingClient:
        runtime = await self._session.runtime()
        number = await runtime.number("model")
        model = await runtime.session.create_model(
            number, base_model, lora, user_metadata, optimizer
        )
        return await self._training_client(model)

    async def _load_model(  # noqa: PLR0913 - upstream's options
        self,
        path: str,
        base_model: str | None,
        user_metadata: Mapping[str, str] | None,
        weights_access_token: str | None,
        optimizer: OptimizerConfig | None,
        *,
        with_optimizer: bool,
    ) -> TrainingClient:
        runtime = await self._session.runtime()
        model = await runtime.session.create_model_from_state(
            await runtime.number("model"),
            path,
            optimizer=with_optimizer,
            user_metadata=user_metadata,
            base_model=base_model,
            weights_access_token=Secret(weights_access_token) if weights_access_token else None,
            optimizer_config=optimizer,
        )
        return await self._training_client(model)

    async def _training_client(self, model: ModelHandle) -> TrainingClient:
        runtime = await self._session.runtime()
        port = await runtime.open_training(model)
        return TrainingClient(self._session, port, model, runtime.flags)


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


def _second(
    base_model: str | Mapping[str, str] | None, user_metadata: Mapping[str, str] | None
) -> tuple[str | None, Mapping[str, str] | None]:
    """Tell the two generations' second argument apart: a base model, or metadata.

    Raises:
        TypeError: Metadata is given twice.
    """
    if not isinstance(base_model, Mapping):
        return base_model, user_metadata
    if user_metadata is not None:
        message = "user_metadata is given twice, in the place of base_model too"
        raise TypeError(message)
    return None, base_model

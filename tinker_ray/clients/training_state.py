"""What a ``TrainingClient`` saves and loads: states, sampler weights, exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.config import Secret
from tinker_ray.core.operation import LoadState, SaveExternal, SaveForSampler, SaveState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.clients.operations import Operations
    from tinker_ray.types import (
        LoadWeightsResponse,
        SaveWeightsExternalResponse,
        SaveWeightsForSamplerResponse,
        SaveWeightsResponse,
    )


class TrainingState:
    """The part of :class:`~tinker_ray.clients.training.TrainingClient` about checkpoints."""

    _operations: Operations

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

        Args:
            path: ``tinker://…/weights/…``
            weights_access_token: Lets this account read a checkpoint of another one.

        Raises:
            TinkerError: From the future: the name is taken, or the save failed.
        """
        return self._operations.start(
            lambda seq: SaveState(seq, name, ttl_seconds, overwrite, user_metadata)
        )

    async def save_state_async(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsResponse]:
        """Async twin of :meth:`save_state`; gives the future once the operation has its place."""
        return self.save_state(name, ttl_seconds, overwrite, user_metadata)

    def load_state(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Load the weights of a checkpoint; the optimizer starts fresh.

        Args:
            path: ``tinker://…/weights/…``
            weights_access_token: Lets this account read a checkpoint of another one.

        Raises:
            TinkerError: From the future: the path does not exist or does not fit the model.
        """
        return self._load(path, weights_access_token, optimizer=False)

    async def load_state_async(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Async twin of :meth:`load_state`; gives the future once the operation has its place."""
        return self._load(path, weights_access_token, optimizer=False)

    def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Load the weights and the optimizer state of a checkpoint.

        Args:
            path: ``tinker://…/weights/…``
            weights_access_token: Lets this account read a checkpoint of another one.

        Raises:
            TinkerError: From the future: the path does not exist or does not fit the model.
        """
        return self._load(path, weights_access_token, optimizer=True)

    async def load_state_with_optimizer_async(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Async twin of :meth:`load_state_with_optimizer`."""
        return self._load(path, weights_access_token, optimizer=True)

    def save_weights_for_sampler(
        self,
        name: str,
        ttl_seconds: int | None = None,
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Save the weights for sampling as ``tinker://<model>/sampler_weights/<name>``.

        Args:
            name: Unique among the model's sampler weights.
            ttl_seconds: When the service may delete them; None keeps them.
            user_metadata: Kept with the checkpoint.

        Args:
            path: ``tinker://…/weights/…``
            weights_access_token: Lets this account read a checkpoint of another one.

        Raises:
            TinkerError: From the future: the name is taken, or the save failed.
        """
        return self._operations.start(
            lambda seq: SaveForSampler(seq, name, None, ttl_seconds, user_metadata)
        )

    async def save_weights_for_sampler_async(
        self,
        name: str,
        ttl_seconds: int | None = None,
        user_metadata: Mapping[str, str] | None = None,
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Async twin of :meth:`save_weights_for_sampler`."""
        return self.save_weights_for_sampler(name, ttl_seconds, user_metadata)

    def save_weights_external(
        self,
        name: str,
        ttl_seconds: int | None = None,
        age_encryption_recipients: Sequence[str] | None = None,
    ) -> APIFuture[SaveWeightsExternalResponse]:
        """Export the weights, to be taken away, as ``tinker://<model>/external_weights/<name>``.

        Args:
            name: Unique among the model's exports.
            ttl_seconds: When the service may delete the export; None keeps it.
            age_encryption_recipients: Public keys, age's (``age1…``) or SSH's, at most 10: the
                files are encrypted so that only their owners can read them.

        Raises:
            TinkerError: From the future: the name is taken, or the export failed.
        """
        recipients = age_encryption_recipients
        keys = None if recipients is None else tuple(recipients)
        return self._operations.start(lambda seq: SaveExternal(seq, name, ttl_seconds, keys))

    async def save_weights_external_async(
        self,
        name: str,
        ttl_seconds: int | None = None,
        age_encryption_recipients: Sequence[str] | None = None,
    ) -> APIFuture[SaveWeightsExternalResponse]:
        """Async twin of :meth:`save_weights_external`."""
        return self.save_weights_external(name, ttl_seconds, age_encryption_recipients)

    def _load(
        self, path: str, token: str | None, *, optimizer: bool
    ) -> APIFuture[LoadWeightsResponse]:
        secret = Secret(token) if token else None
        return self._operations.start(lambda seq: LoadState(seq, path, optimizer, secret))

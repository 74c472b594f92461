"""What a ``TrainingClient`` does with rollouts whose tokens are elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.clients.operations import Operations
    from tinker_ray.core.far_operation import FarOutput
    from tinker_ray.rollouts.far_datum import AnyDatum
    from tinker_ray.types import LossFnType


class FarTraining:
    """The part of :class:`~tinker_ray.clients.training.TrainingClient` about far rollouts."""

    _operations: Operations

    @property
    def takes_far_data(self) -> bool:
        """Whether :meth:`forward_backward_far` can be used: on a cluster."""
        return self._operations.takes_far_data

    def forward_backward_far(
        self,
        data: Sequence[AnyDatum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> APIFuture[FarOutput]:
        """Do as :meth:`forward_backward` with rollouts whose tokens are not in this process.

        The training actor fetches them, makes the data and keeps the arrays of the answer.

        Args:
            data: At least one datum, made by :func:`tinker_ray.rollouts.far_datum.far_data`.
            loss_fn: Name of the loss.
            loss_fn_config: Its settings.

        Raises:
            ValueError: ``data`` is empty.
            ConfigurationError: The model is trained from this process.
            TinkerError: From the future: the request was refused or failed.
        """
        if not self.takes_far_data:
            message = "far data are made by a training actor: use forward_backward in local mode"
            raise ConfigurationError(message)
        return self._operations.far_batch(data, loss_fn, loss_fn_config or {})

"""Results of operations that change models: steps, saves, loads, copies, makings.

``path`` is a ``tinker://`` path.
"""

from __future__ import annotations

from typing import Literal

from tinker_ray.types import console
from tinker_ray.types.checkpoint import ParsedCheckpointTinkerPath
from tinker_ray.types.model import Record
from tinker_ray.types.training_run import ModelID


class CreateModelResponse(Record):
    """The id of a new model, which is also its training run's."""

    model_id: ModelID
    type: Literal["create_model"] = "create_model"


class UnloadModelResponse(Record):
    """The id of a model that is no longer held."""

    model_id: ModelID
    type: Literal["unload_model"] | None = None


class OptimStepResponse(Record):
    """Metrics of an optimizer step, such as the gradient norm."""

    metrics: dict[str, float] | None = None


class SaveWeightsResponse(Record):
    """``tinker://<run>/weights/<name>``."""

    path: str
    type: Literal["save_weights"] | None = None

    def get_console_url(self) -> str:
        """Address the checkpoint in the hosted service's console."""
        return _console_url(self.path)


class LoadWeightsResponse(Record):
    """The path that was loaded, and the model that was made for it if one was."""

    path: str | None = None
    model_id: ModelID | None = None
    type: Literal["load_weights"] | None = None


class SaveWeightsForSamplerResponseInternal(Record):
    """A path for a named save, a sampling session for an ephemeral one."""

    path: str | None = None
    sampling_session_id: str | None = None
    type: Literal["save_weights_for_sampler"] | None = None


class SaveWeightsForSamplerResponse(Record):
    """``tinker://<run>/sampler_weights/<name>``."""

    path: str
    type: Literal["save_weights_for_sampler"] | None = None

    def get_console_url(self) -> str:
        """Address the checkpoint in the hosted service's console."""
        return _console_url(self.path)

    def get_playground_url(self) -> str:
        """Address the hosted service's playground with the checkpoint."""
        return console.playground_url(self.path)


class SaveWeightsExternalResponseInternal(Record):
    """``tinker://<run>/external_weights/<name>``, and the size of its files in bytes."""

    path: str | None = None
    size_bytes: int | None = None
    type: Literal["save_weights_external"] | None = None


class SaveWeightsExternalResponse(Record):
    """``tinker://<run>/external_weights/<name>``."""

    path: str
    type: Literal["save_weights_external"] | None = None


class CopyWeightsResponse(Record):
    """The path of the copy."""

    tinker_path: str


class CreateCustomLossResponse(Record):
    """The id by which ``loss_fn="custom"`` finds the loss."""

    loss_id: str
    type: Literal["create_custom_loss"] = "create_custom_loss"


def _console_url(path: str) -> str:
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(path)
    return console.checkpoint_url(parsed.training_run_id, parsed.checkpoint_id)

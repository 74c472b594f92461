"""What goes into a training step and what comes out of it.

Knows nothing of the formulas of the losses: those are the service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tinker_ray.types.prompt import ModelInput
from tinker_ray.types.tensor import TensorData, TensorDtype

LossFnType: TypeAlias = Literal[
    "cross_entropy",
    "importance_sampling",
    "ppo",
    "cispo",
    "dro",
    "gspo",
    "stable_reinforce",
    "custom",
]
LossFnInputs: TypeAlias = Mapping[str, TensorData]
TensorLike: TypeAlias = TensorData | Sequence[Any] | npt.NDArray[Any] | Any
"""What a loss input may be given as; the last stands for torch tensors, as torch is optional."""
LossFnConfig: TypeAlias = Mapping[str, float | str]

_LIST_DTYPES: dict[str, TensorDtype] = {
    "target_tokens": "int64",
    "weights": "float32",
    "advantages": "float32",
    "logprobs": "float32",
    "clip_low_threshold": "float32",
    "clip_high_threshold": "float32",
    "sequence_ratio_mask": "float32",
}


@dataclass(frozen=True, init=False)
class Datum:
    """One training sequence: an input of N tokens and the tensors that the loss reads."""

    model_input: ModelInput
    loss_fn_inputs: LossFnInputs

    def __init__(
        self, model_input: ModelInput, loss_fn_inputs: Mapping[str, TensorLike] | None = None
    ) -> None:
        """Turn every loss input into :class:`TensorData`.

        Args:
            model_input: What the model reads.
            loss_fn_inputs: TensorData, numpy arrays, torch tensors or lists; a list's dtype
                follows from its key.

        Raises:
            KeyError: A list has a key of unknown dtype.
            ValueError: A value is no rectangular array of numbers.
            TypeError: A value is none of these.
        """
        tensors = {key: _tensor(key, value) for key, value in (loss_fn_inputs or {}).items()}
        object.__setattr__(self, "model_input", model_input)
        object.__setattr__(self, "loss_fn_inputs", tensors)


def _tensor(key: str, value: TensorLike) -> TensorData:
    if isinstance(value, TensorData):
        return value
    if isinstance(value, np.ndarray):
        return TensorData.from_numpy(value)
    if isinstance(value, list | tuple):
        if key not in _LIST_DTYPES:
            known = ", ".join(sorted(_LIST_DTYPES))
            message = (
                f"loss_fn_inputs[{key!r}] is a list of unknown dtype (known: {known}): use an array"
            )
            raise KeyError(message)
        try:
            array = np.asarray(value)
            return TensorData(array, _LIST_DTYPES[key], array.shape)
        except ValueError as error:
            message = f"loss_fn_inputs[{key!r}] must be a rectangular list of numbers: {error}"
            raise ValueError(message) from error
    if hasattr(value, "is_floating_point"):
        return TensorData.from_torch(value)
    message = (
        f"loss_fn_inputs[{key!r}] is a {type(value).__name__}: use TensorData, an array or a list"
    )
    raise TypeError(message)


@dataclass(frozen=True)
class ForwardBackwardOutput:
    """The result of ``forward`` and ``forward_backward``.

    Attributes:
        loss_fn_output_type: The service's name for the kind of ``loss_fn_outputs``.
        loss_fn_outputs: One mapping per datum, in request order; ``logprobs`` is float32 ``(T,)``.
        metrics: Keys of the form ``<name>:<reduction>``, such as ``loss:sum``.
    """

    loss_fn_output_type: str
    loss_fn_outputs: Sequence[Mapping[str, TensorData]]
    metrics: dict[str, float]


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraConfig(_Parameters):
    """Which modules get low-rank adapters, of which rank, initialised by which seed."""

    rank: int = Field(gt=0)
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class AdamParams(_Parameters):
    """AdamW for one step; ``weight_decay`` is decoupled, ``grad_clip_norm`` 0 means no clipping.

    ``grad_clip_norm`` bounds the global L2 norm of the accumulated gradients.
    """

    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-12, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    grad_clip_norm: float = Field(default=0.0, ge=0, allow_inf_nan=False)

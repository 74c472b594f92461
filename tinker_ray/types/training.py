"""What goes into a training step and what comes out of it.

Knows nothing of the formulas of the losses: those are the service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tinker_ray.types.model import Strict
from tinker_ray.types.prompt import ModelInput
from tinker_ray.types.provenance import (
    PromptProvenanceSpan,
    ProvenanceSpans,
    SampledProvenanceSpan,
)
from tinker_ray.types.tensor import TensorData, TensorDtype
from tinker_ray.types.value import Value

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
LossFnInputs: TypeAlias = dict[str, TensorData]
LossFnOutput: TypeAlias = dict[str, TensorData]
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
_SPARSE_KEYS = frozenset({"target_tokens", "weights"})
_MATRIX_AXES = 2


@dataclass(frozen=True, init=False)
class Datum(Value):
    """One training sequence: an input of N tokens and the tensors that the loss reads.

    Attributes:
        model_input: What the model reads.
        loss_fn_inputs: What the loss reads, by name.
        model_input_spans: Where the input's tokens come from; the runs tile ``model_input``.
        loss_fn_input_spans: Where the targets come from; the runs tile ``target_tokens``.
    """

    model_input: ModelInput
    loss_fn_inputs: LossFnInputs
    model_input_spans: ProvenanceSpans | None
    loss_fn_input_spans: ProvenanceSpans | None

    def __init__(
        self,
        model_input: ModelInput,
        loss_fn_inputs: Mapping[str, TensorLike] | None = None,
        model_input_spans: ProvenanceSpans | None = None,
        loss_fn_input_spans: ProvenanceSpans | None = None,
    ) -> None:
        """Turn every loss input into :class:`TensorData`.

        Args:
            model_input: What the model reads.
            loss_fn_inputs: TensorData, numpy arrays, torch tensors or lists; a list's dtype
                follows from its key, 2-D torch targets and weights become sparse if that pays.
            model_input_spans: Comes with ``loss_fn_input_spans`` or not at all.
            loss_fn_input_spans: Comes with ``model_input_spans`` or not at all.

        Raises:
            KeyError: A list has a key of unknown dtype.
            ValueError: A value is no rectangular array of numbers, or the spans do not tile.
            TypeError: A value is none of these, or a span is no span.
        """
        tensors = {key: _tensor(key, value) for key, value in (loss_fn_inputs or {}).items()}
        object.__setattr__(self, "model_input", model_input)
        object.__setattr__(self, "loss_fn_inputs", tensors)
        object.__setattr__(self, "model_input_spans", model_input_spans)
        object.__setattr__(self, "loss_fn_input_spans", loss_fn_input_spans)
        if model_input_spans is None and loss_fn_input_spans is None:
            return
        if model_input_spans is None or loss_fn_input_spans is None:
            message = "model_input_spans and loss_fn_input_spans come together: set both or neither"
            raise ValueError(message)
        _check_spans("model_input_spans", model_input_spans, model_input.length)
        _check_spans("loss_fn_input_spans", loss_fn_input_spans, _num_targets(tensors))

    def with_provenance(
        self, model_input: ProvenanceSpans, loss_fn_inputs: ProvenanceSpans
    ) -> Datum:
        """Return a copy that says where its tokens come from.

        Args:
            model_input: Runs that tile the input's tokens.
            loss_fn_inputs: Runs that tile ``loss_fn_inputs["target_tokens"]``.

        Raises:
            ValueError: The lengths of the runs do not add up to what they tile.
        """
        return Datum(self.model_input, self.loss_fn_inputs, model_input, loss_fn_inputs)

    @classmethod
    def _nested(cls, fields: dict[str, Any]) -> dict[str, Any]:
        inputs = {
            key: TensorData.model_validate(value) if isinstance(value, Mapping) else value
            for key, value in fields.get("loss_fn_inputs", {}).items()
        }
        prompt = ModelInput.model_validate(fields.get("model_input"))
        return fields | {"model_input": prompt, "loss_fn_inputs": inputs}


def _check_spans(name: str, spans: Sequence[Any], num_positions: int | None) -> None:
    for index, span in enumerate(spans):
        if not isinstance(span, PromptProvenanceSpan | SampledProvenanceSpan):
            message = (
                f"{name}[{index}] is a {type(span).__name__}: "
                "use PromptProvenanceSpan or SampledProvenanceSpan"
            )
            raise TypeError(message)
    total = sum(span.length for span in spans)
    if num_positions is not None and total != num_positions:
        message = f"{name} cover {total} positions of {num_positions}: the runs must tile them"
        raise ValueError(message)


def _num_targets(tensors: LossFnInputs) -> int | None:
    """Count the positions that the loss has targets for; None where spans cannot be counted."""
    targets = tensors.get("target_tokens")
    if targets is None or targets.is_sparse or targets.values.ndim != 1:
        return None
    return int(targets.values.size)


def _tensor(key: str, value: Any) -> TensorData:  # noqa: ANN401 - torch stays optional
    if isinstance(value, TensorData):
        return value
    if isinstance(value, np.ndarray):
        return TensorData.from_numpy(value)
    if isinstance(value, list | tuple):
        return _listed(key, value)
    if hasattr(value, "is_floating_point"):
        if key in _SPARSE_KEYS and value.ndim == _MATRIX_AXES:
            return TensorData.from_torch_sparse(value)
        return TensorData.from_torch(value)
    message = (
        f"loss_fn_inputs[{key!r}] is a {type(value).__name__}: use TensorData, an array or a list"
    )
    raise TypeError(message)


def _listed(key: str, value: Sequence[Any]) -> TensorData:
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


@dataclass(frozen=True)
class ForwardBackwardInput:
    """A batch with its loss.

    Attributes:
        data: The datums, whose losses are summed.
        loss_fn: The loss's name.
        loss_fn_config: Settings of the loss, such as ``clip_low_threshold``.
    """

    data: Sequence[Datum]
    loss_fn: LossFnType
    loss_fn_config: LossFnConfig | None = None


@dataclass(frozen=True)
class ForwardBackwardOutput(Value):
    """The result of ``forward`` and ``forward_backward``.

    Attributes:
        loss_fn_output_type: The service's name for the kind of ``loss_fn_outputs``.
        loss_fn_outputs: One mapping per datum, in request order; ``logprobs`` is float32 ``(T,)``.
        metrics: Keys of the form ``<name>:<reduction>``, such as ``loss:sum``.
    """

    loss_fn_output_type: str
    loss_fn_outputs: Sequence[LossFnOutput]
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def _nested(cls, fields: dict[str, Any]) -> dict[str, Any]:
        outputs = [
            {key: TensorData.model_validate(value) for key, value in item.items()}
            for item in fields.get("loss_fn_outputs", ())
        ]
        return fields | {"loss_fn_outputs": outputs}


class LoraConfig(Strict):
    """Which modules get low-rank adapters, of which rank, initialised by which seed."""

    rank: int = Field(gt=0)
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

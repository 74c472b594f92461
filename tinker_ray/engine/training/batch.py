"""From datums to micro-batches: checked rows, packed under a token budget.

Pure numpy; knows nothing of models beyond vocabulary and context sizes. Every mistake in a datum is
found here, before anything is computed, and named by its path.

Invariant: each row is in exactly one micro-batch, and the packing depends on nothing but the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinker_ray.engine.training.loss import find_loss
from tinker_ray.errors import EngineError
from tinker_ray.types import EncodedTextChunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.types import Datum, TensorData


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One checked datum: ``T`` tokens, ``T`` targets, ``T`` numbers per loss input."""

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    inputs: Mapping[str, npt.NDArray[np.float32]]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def check_datums(
    data: Sequence[Datum], loss_fn: str, *, vocab_size: int, context_length: int
) -> list[TrainingRow]:
    """Turn datums into rows.

    Raises:
        EngineError: Something is missing, unknown, of a wrong shape or out of range.
    """
    find_loss(loss_fn)
    if not data:
        _refuse("data", "is empty")
    return [
        _check_datum(f"data[{index}]", datum, loss_fn, vocab_size, context_length)
        for index, datum in enumerate(data)
    ]


def pack(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Group indices of rows so that rows times longest row stays within the budget.

    Rows of similar length come together, longest first; a row beyond the budget is alone.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or (len(batches[-1]) + 1) * longest > budget_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def _check_datum(
    path: str, datum: Datum, loss_fn: str, vocab_size: int, context_length: int
) -> TrainingRow:
    tokens = _tokens(f"{path}.model_input", datum, vocab_size, context_length)
    given = datum.loss_fn_inputs
    spec = find_loss(loss_fn)
    for key in ("target_tokens", *spec.inputs):
        if key not in given:
            _refuse(f"{path}.loss_fn_inputs", f"lacks {key!r}, which {loss_fn!r} requires")
    floats = (*spec.inputs, *(key for key in spec.optional_inputs if key in given))
    for key in given:
        if key not in {"target_tokens", *floats}:
            _refuse(f"{path}.loss_fn_inputs", f"has {key!r}, which {loss_fn!r} does not read")
    targets = _array(f"{path}.loss_fn_inputs", "target_tokens", given, len(tokens))
    if targets.dtype.kind != "i":
        _refuse(f"{path}.loss_fn_inputs['target_tokens']", "must be int64")
    _check_range(f"{path}.loss_fn_inputs['target_tokens']", targets, vocab_size)
    inputs = {
        key: _array(f"{path}.loss_fn_inputs", key, given, len(tokens)).astype(np.float32)
        for key in floats
    }
    for key, values in inputs.items():
        if not np.isfinite(values).all():
            _refuse(f"{path}.loss_fn_inputs[{key!r}]", "has a value that is not finite")
    return TrainingRow(tokens, targets.astype(np.int64), inputs)


def _tokens(path: str, datum: Datum, vocab_size: int, context_length: int) -> npt.NDArray[np.int64]:
    parts: list[npt.NDArray[np.int64]] = []
    for index, chunk in enumerate(datum.model_input.chunks):
        if not isinstance(chunk, EncodedTextChunk):
            _refuse(f"{path}.chunks[{index}]", "is an image, and the base model reads only text")
        parts.append(np.asarray(chunk.tokens, dtype=np.int64))
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    if len(tokens) == 0:
        _refuse(path, "has no tokens")
    if len(tokens) > context_length:
        _refuse(path, f"has {len(tokens)} tokens, the base model's context is {context_length}")
    _check_range(path, tokens, vocab_size)
    return tokens


def _array(path: str, key: str, given: Mapping[str, TensorData], length: int) -> npt.NDArray[Any]:
    tensor = given[key]
    values = tensor.to_numpy()
    if tensor.is_sparse or values.shape != (length,):
        shape = tuple(tensor.shape or values.shape)
        _refuse(
            f"{path}[{key!r}]",
            f"has shape {shape}, expected ({length},): one per token of model_input",
        )
    return values


def _check_range(path: str, tokens: npt.NDArray[np.int64], vocab_size: int) -> None:
    outside = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if len(outside):
        token = tokens[outside[0]]
        _refuse(path, f"has token {token} at {outside[0]}, ids go from 0 to {vocab_size - 1}")


def _refuse(path: str, problem: str) -> NoReturn:
    message = f"{path} {problem}"
    raise EngineError(message, category="user")

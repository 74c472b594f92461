"""One datum turned into one row of numbers, or refused with the path of what is wrong in it.

Pure numpy; knows nothing of models beyond vocabulary and context sizes.

Inputs that a loss does not read are not looked at: the clients of a custom loss leave theirs in the
datums whose logprobs they ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinker_ray.engine.training.loss import CUSTOM, RATIO_MASK, SAMPLED, find_loss
from tinker_ray.engine.training.provenance import recorded_logprobs
from tinker_ray.errors import EngineError
from tinker_ray.types import EncodedTextChunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.engine.training.custom_loss.graph import LossInput
    from tinker_ray.engine.training.provenance import FindSample
    from tinker_ray.types import Datum, TensorData

TARGETS = "target_tokens"
MAX_CELLS = 1 << 24
"""Most cells of one input of one datum."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a base model can read.

    Attributes:
        vocab_size: Token ids are below it.
        context_length: Most tokens of one row.
    """

    vocab_size: int
    context_length: int


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One checked datum.

    Attributes:
        tokens: What the model reads, ``(T,)``.
        targets: ``(T,)``, or ``(T, K)`` for K targets a position.
        inputs: What the loss reads.
    """

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    inputs: Mapping[str, npt.NDArray[Any]]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def width(self) -> int:
        """Targets per position."""
        return 1 if self.targets.ndim == 1 else self.targets.shape[1]


def check_datum(  # noqa: PLR0913 - what a datum is checked against
    path: str,
    datum: Datum,
    loss_fn: str,
    limits: Limits,
    *,
    forward_only: bool,
    find_sample: FindSample,
) -> TrainingRow:
    """Turn a datum into a row for one of the named losses.

    Without weights, a forward-only ``cross_entropy`` weighs all targets alike.

    Args:
        path: Where the datum is in its request.
        datum: What to check.
        loss_fn: The loss that will read it.
        limits: What the base model can read.
        forward_only: Whether there will be no gradient.
        find_sample: Looks recorded samples up, for losses that read them.

    Raises:
        EngineError: Something is missing, of a wrong shape or dtype, or out of range.
    """
    spec = find_loss(loss_fn)
    tokens = check_tokens(f"{path}.model_input", datum, limits)
    targets = check_targets(path, datum, tokens, limits)
    if spec.is_flat and targets.ndim != 1:
        refuse(input_path(path, TARGETS), f"has shape {targets.shape}: {loss_fn!r} reads only (T,)")
    given = datum.loss_fn_inputs
    inputs: dict[str, npt.NDArray[np.float32]] = {}
    for key in (*spec.inputs, *(key for key in spec.optional_inputs if key in given)):
        if key not in given and key == "weights" and forward_only:
            inputs[key] = np.ones(targets.shape, np.float32)
        else:
            _require(path, key, given, loss_fn)
            inputs[key] = _floats(input_path(path, key), given[key], targets.shape)
    if spec.is_recorded:
        found = recorded_logprobs(path, datum, tokens, targets, find_sample)
        inputs["logprobs"], inputs[SAMPLED] = found
        outside = np.flatnonzero((inputs[SAMPLED] == 0) & (inputs["advantages"] != 0))
        if len(outside):
            problem = f"is not 0 at {outside[0]}, where the target was not sampled"
            refuse(input_path(path, "advantages"), problem)
    if RATIO_MASK in inputs and not inputs[RATIO_MASK].any():
        refuse(input_path(path, RATIO_MASK), "marks no token: the ratio is a mean over its tokens")
    return TrainingRow(tokens, targets, inputs)


def check_custom_datum(
    path: str, datum: Datum, declared: Sequence[LossInput], limits: Limits
) -> TrainingRow:
    """Turn a datum into a row for a custom loss, which reads ``declared``, ``logprobs`` first.

    Raises:
        EngineError: Something is missing, of a wrong rank, or out of range.
    """
    tokens = check_tokens(f"{path}.model_input", datum, limits)
    targets = check_targets(path, datum, tokens, limits)
    given = datum.loss_fn_inputs
    inputs: dict[str, npt.NDArray[Any]] = {}
    for item in declared:
        key = TARGETS if item.name == "logprobs" else item.name
        _require(path, key, given, CUSTOM)
        shape = shape_of(given[key])
        if len(shape) != item.rank:
            problem = f"has shape {shape}, but the loss declares {item.name} with rank {item.rank}"
            refuse(input_path(path, key), problem)
        if item.name != "logprobs":
            inputs[key] = dense(input_path(path, key), given[key])
    return TrainingRow(tokens, targets, inputs)


def check_tokens(path: str, datum: Datum, limits: Limits) -> npt.NDArray[np.int64]:
    """Return the tokens of a datum, ``(T,)``.

    Raises:
        EngineError: There are none, too many or unknown ones, or something that is no text.
    """
    parts: list[npt.NDArray[np.int64]] = []
    for index, chunk in enumerate(datum.model_input.chunks):
        if not isinstance(chunk, EncodedTextChunk):
            refuse(f"{path}.chunks[{index}]", f"is {chunk.type}: the base model reads only text")
        parts.append(np.asarray(chunk.tokens, dtype=np.int64))
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    if len(tokens) == 0:
        refuse(path, "has no tokens")
    if len(tokens) > limits.context_length:
        context = limits.context_length
        refuse(path, f"has {len(tokens)} tokens, the base model's context is {context}")
    _check_range(path, tokens, limits.vocab_size)
    return tokens


def check_targets(
    path: str, datum: Datum, tokens: npt.NDArray[np.int64], limits: Limits
) -> npt.NDArray[np.int64]:
    """Return the targets of a datum, ``(T,)`` or ``(T, K)``.

    Cells that a sparse tensor does not list are token 0, as its clients leave zeros out.

    Raises:
        EngineError: They are missing, of a wrong shape or dtype, or unknown tokens.
    """
    _require(path, TARGETS, datum.loss_fn_inputs)
    where, tensor = input_path(path, TARGETS), datum.loss_fn_inputs[TARGETS]
    shape = shape_of(tensor)
    if shape[:1] != (len(tokens),) or len(shape) > 2:  # noqa: PLR2004 - (T, K)
        expected = f"({len(tokens)},) or ({len(tokens)}, K): one row per token of model_input"
        refuse(where, f"has shape {shape}, expected {expected}")
    if len(shape) > 1 and not 1 <= shape[1] <= limits.vocab_size:
        refuse(where, f"has {shape[1]} targets a position, from 1 to {limits.vocab_size} fit")
    if tensor.dtype != "int64":
        refuse(where, f"is {tensor.dtype}, expected int64")
    targets = dense(where, tensor).astype(np.int64, copy=False)
    _check_range(where, targets, limits.vocab_size)
    return targets


def input_path(path: str, key: str) -> str:
    """Name an input of the loss in a datum."""
    return f"{path}.loss_fn_inputs[{key!r}]"


def shape_of(tensor: TensorData) -> tuple[int, ...]:
    """Return the shape of the tensor that is meant, also if it is sparse."""
    return tuple(tensor.values.shape if tensor.shape is None else tensor.shape)


def dense(path: str, tensor: TensorData) -> npt.NDArray[Any]:
    """Return all cells of a tensor.

    Raises:
        EngineError: There are too many.
    """
    if np.prod(shape_of(tensor), dtype=np.float64) > MAX_CELLS:
        refuse(path, f"has shape {shape_of(tensor)}, more than {MAX_CELLS} cells")
    return tensor.to_numpy()


def refuse(path: str, problem: str) -> NoReturn:
    """Refuse a request for what is wrong at a path.

    Raises:
        EngineError: Always.
    """
    message = f"{path} {problem}"
    raise EngineError(message, category="user")


def _require(
    path: str, key: str, given: Mapping[str, TensorData], loss_fn: str | None = None
) -> None:
    if key not in given:
        needed = "" if loss_fn is None else f", which {loss_fn!r} requires"
        refuse(f"{path}.loss_fn_inputs", f"lacks {key!r}{needed}")


def _floats(path: str, tensor: TensorData, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    if shape_of(tensor) != tuple(shape):
        refuse(path, f"has shape {shape_of(tensor)}, expected {tuple(shape)}, that of {TARGETS}")
    if tensor.dtype != "float32":
        refuse(path, f"is {tensor.dtype}, expected float32")
    values = dense(path, tensor).astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        refuse(path, "has a value that is not finite")
    return values


def _check_range(path: str, tokens: npt.NDArray[np.int64], vocab_size: int) -> None:
    outside = np.argwhere((tokens < 0) | (tokens >= vocab_size))
    if len(outside):
        where = tuple(int(index) for index in outside[0])
        place = where[0] if len(where) == 1 else where
        token = tokens[where]
        refuse(path, f"has token {token} at {place}, ids go from 0 to {vocab_size - 1}")

"""Splitting a training batch into requests, and joining their results.

Losses are sums over datums, so that the gradients of the parts add up to those of the whole.
Metrics carry their reduction in their name (``loss:sum``) and are joined by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from tinker_ray.errors import WireFormatError
from tinker_ray.types import DmelChunk, EncodedTextChunk, ForwardBackwardOutput, ImageChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinker_ray.types import Datum, ModelInputChunk, TensorData

T = TypeVar("T")

BYTES_PER_TOKEN = 4
BYTES_PER_INDEX = 8
_HASH_MODULUS = 1 << 64


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """The most that one request carries; a datum that exceeds them alone travels alone.

    Attributes:
        max_datums: Datums in one request.
        max_bytes: Their size before compression.
        max_numbers: For services that read JSON only, which count numbers and not bytes; None for
            all others.
    """

    max_datums: int = 1024
    max_bytes: int = 5_000_000
    max_numbers: int | None = None

    JSON_ONLY: ClassVar[ChunkLimits]
    """What services take that read JSON only."""

    def cost(self, datum: Datum) -> int:
        """Tell how much of :attr:`budget` a datum takes."""
        return datum_bytes(datum) if self.max_numbers is None else datum_numbers(datum)

    @property
    def budget(self) -> int:
        """The most that the datums of one request may cost."""
        return self.max_bytes if self.max_numbers is None else self.max_numbers


ChunkLimits.JSON_ONLY = ChunkLimits(max_datums=128, max_numbers=500_000)


def datum_bytes(datum: Datum) -> int:
    """Estimate the uncompressed size of a datum in protobuf."""
    chunks = sum(
        BYTES_PER_TOKEN * chunk.length
        if isinstance(chunk, EncodedTextChunk)
        else _opaque_bytes(chunk)
        for chunk in datum.model_input.chunks
    )
    return chunks + sum(_tensor_bytes(tensor) for tensor in datum.loss_fn_inputs.values())


def datum_numbers(datum: Datum) -> int:
    """Count the numbers of a datum in JSON, where sparse tensors are written out; a byte is one."""
    chunks = sum(
        chunk.length if isinstance(chunk, EncodedTextChunk) else _opaque_bytes(chunk)
        for chunk in datum.model_input.chunks
    )
    return chunks + sum(_num_elements(tensor) for tensor in datum.loss_fn_inputs.values())


def _opaque_bytes(chunk: ModelInputChunk) -> int:
    if isinstance(chunk, ImageChunk):
        return len(chunk.data)
    if isinstance(chunk, DmelChunk):
        return len(chunk.dmel)
    return 0 if isinstance(chunk, EncodedTextChunk) else len(chunk.location)


def _tensor_bytes(tensor: TensorData) -> int:
    indices = tensor.csr_indices or ()
    return int(tensor.values.nbytes) + BYTES_PER_INDEX * sum(map(len, indices))


def _num_elements(tensor: TensorData) -> int:
    if not tensor.is_sparse:
        return int(tensor.values.size)
    num_rows, num_columns = tensor.shape or (0, 0)
    return num_rows * num_columns


def split(data: Sequence[Datum], limits: ChunkLimits) -> list[list[Datum]]:
    """Cut a batch into consecutive parts within the limits; no part is empty."""
    return parts_within(limits, data, limits.cost)


def parts_within(
    limits: ChunkLimits, items: Sequence[T], cost_of: Callable[[T], int]
) -> list[list[T]]:
    """Cut anything that stands for datums into such parts."""
    parts: list[list[T]] = []
    size = 0
    for item in items:
        cost = cost_of(item)
        full = not parts or len(parts[-1]) >= limits.max_datums or size + cost > limits.budget
        if full:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += cost
    return parts


def join(outputs: Sequence[ForwardBackwardOutput], counts: Sequence[int]) -> ForwardBackwardOutput:
    """Join the results of consecutive parts of ``counts`` datums each; of none, an empty result.

    Raises:
        WireFormatError: A metric's name has not exactly one colon.
    """
    if not outputs:
        return ForwardBackwardOutput(loss_fn_output_type="", loss_fn_outputs=[], metrics={})
    return ForwardBackwardOutput(
        loss_fn_output_type=outputs[0].loss_fn_output_type,
        loss_fn_outputs=[item for output in outputs for item in output.loss_fn_outputs],
        metrics=join_metrics([output.metrics for output in outputs], counts),
    )


def join_metrics(parts: Sequence[dict[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Reduce metrics that every part has by their suffix; a key with an unknown suffix is dropped.

    Raises:
        WireFormatError: A name has not exactly one colon, or a hash is no number.
    """
    joined: dict[str, float] = {}
    for key in parts[0]:
        if key.count(":") != 1:
            raise WireFormatError("a metric is named <name>:<reduction>", field=f"metrics.{key}")
        if all(key in part for part in parts):
            joined.update(_reduce(key, [part[key] for part in parts], counts))
    return joined


def _reduce(key: str, values: list[float], counts: Sequence[int]) -> dict[str, float]:
    reduction = key.partition(":")[2]
    if reduction == "unique":
        return {key if i == 0 else f"{key}_{i}": value for i, value in enumerate(values)}
    if reduction in _HASHES:
        return {key: _HASHES[reduction](_integers(key, values))}
    reduce = _REDUCTIONS.get(reduction)
    return {} if reduce is None else {key: reduce(values, counts)}


def _mean(values: list[float], counts: Sequence[int]) -> float:
    weighted = sum(value * count for value, count in zip(values, counts, strict=True))
    return weighted / sum(counts)


def _integers(key: str, values: list[float]) -> list[int]:
    if not all(map(math.isfinite, values)):
        raise WireFormatError("a hash is an integer", field=f"metrics.{key}")
    return [int(value) for value in values]


def _hash2(values: list[int]) -> int:
    return sum(values) % _HASH_MODULUS


def _hash_unordered(values: list[int]) -> int:
    # Python's hash of a tuple of ints is the same in every process.
    return hash(tuple(sorted(values)))


_REDUCTIONS: dict[str, Callable[[list[float], Sequence[int]], float]] = {
    "sum": lambda values, _: sum(values),
    "min": lambda values, _: float(np.min(values)),
    "max": lambda values, _: float(np.max(values)),
    "mean": _mean,
    "slack": lambda values, counts: float(np.max(values)) - _mean(values, counts),
}
"""NaN anywhere gives NaN."""
_HASHES: dict[str, Callable[[list[int]], int]] = {
    "hash2": _hash2,
    "hash_unordered": _hash_unordered,
}
"""These stay integers: a float would round what identifies a batch."""

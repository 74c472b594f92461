"""The JSON layout of what messages are made of: prompts and their chunks, tensors.

Reads both generations of clients: discriminators (``type``) may be absent, and a missing key, a
null and a default mean the same. Knows nothing of the messages.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    TensorData,
)
from tinker_ray.wire.json_value import floats, indices, ints, optional, required, typed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.types import ModelInputChunk

_CHUNK_KEYS = ("tokens", "data", "location", "dmel")
"""Each kind of chunk has one of these."""


def model_input_to_json(model_input: ModelInput) -> dict[str, Any]:
    """Give the JSON form of a prompt."""
    return {"chunks": [_chunk_to_json(chunk) for chunk in model_input.chunks]}


def _chunk_to_json(chunk: ModelInputChunk) -> dict[str, Any]:
    if isinstance(chunk, EncodedTextChunk):
        return {"tokens": _plain(chunk.tokens), "type": chunk.type}
    if isinstance(chunk, DmelChunk):
        return {"dmel": base64.b64encode(chunk.dmel).decode(), "type": chunk.type}
    fields: dict[str, Any] = {"format": chunk.format, "type": chunk.type}
    if chunk.expected_tokens is not None:
        fields["expected_tokens"] = chunk.expected_tokens
    if isinstance(chunk, ImageChunk):
        return {"data": base64.b64encode(chunk.data).decode(), **fields}
    return {"location": chunk.location, **fields}


def _plain(tokens: Sequence[int] | npt.NDArray[np.integer]) -> list[int] | npt.NDArray[np.integer]:
    """Give tokens as what JSON is written from."""
    if isinstance(tokens, np.ndarray):
        return np.ascontiguousarray(tokens)
    return tokens if isinstance(tokens, list) else list(tokens)


def model_input_from_json(value: object, where: str) -> ModelInput:
    """Read the JSON form of a prompt.

    Raises:
        WireFormatError: It is not one.
    """
    chunks = required(typed(value, dict, where), "chunks", list, where)
    return ModelInput([_chunk_from_json(c, f"{where}.chunks[{i}]") for i, c in enumerate(chunks)])


def _chunk_from_json(value: object, where: str) -> ModelInputChunk:
    fields = typed(value, dict, where)
    kind = next((key for key in _CHUNK_KEYS if key in fields), None)
    if kind == "tokens":
        return EncodedTextChunk(ints(fields["tokens"], f"{where}.tokens"))
    if kind == "dmel":
        return DmelChunk(_base64(fields, "dmel", where))
    if kind is None:
        raise WireFormatError(f"a chunk has one of {', '.join(_CHUNK_KEYS)}", field=where)
    image_format = fields.get("format")
    if image_format not in {"png", "jpeg"}:
        raise WireFormatError(f"unknown image format {image_format!r}", field=f"{where}.format")
    expected = optional(fields, "expected_tokens", int, where)
    if kind == "location":
        return ImageAssetPointerChunk(
            required(fields, "location", str, where), image_format, expected
        )
    return ImageChunk(_base64(fields, "data", where), image_format, expected)


def _base64(fields: Mapping[str, Any], key: str, where: str) -> bytes:
    text = required(fields, key, str, where)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or a character beyond ASCII
        raise WireFormatError(f"not base64: {error}", field=f"{where}.{key}") from error


def tensor_to_json(tensor: TensorData) -> dict[str, Any]:
    """Give the JSON form of a tensor in its own layout; only newer services read the sparse one."""
    fields: dict[str, Any] = {
        "data": tensor.data,
        "dtype": tensor.dtype,
        "shape": list(tensor.values.shape) if tensor.shape is None else tensor.shape,
    }
    if tensor.is_sparse:
        fields["sparse_crow_indices"] = tensor.sparse_crow_indices
        fields["sparse_col_indices"] = tensor.sparse_col_indices
    return fields


def dense_tensor_to_json(tensor: TensorData) -> dict[str, Any]:
    """Give the JSON form that every generation reads: a sparse tensor is padded with 0."""
    return tensor_to_json(TensorData.from_numpy(tensor.to_numpy()) if tensor.is_sparse else tensor)


def tensor_from_json(value: object, where: str) -> TensorData:
    """Read the JSON form of a tensor, dense or sparse.

    Raises:
        WireFormatError: It is not one.
    """
    fields = typed(value, dict, where)
    dtype = fields.get("dtype")
    if dtype not in ("int64", "float32"):  # a tuple: what cannot be hashed may stand here too
        raise WireFormatError(
            f"unknown dtype {dtype!r}: use int64 or float32", field=f"{where}.dtype"
        )
    data = required(fields, "data", list, where)
    shape = indices(fields, "shape", where)
    crow = indices(fields, "sparse_crow_indices", where)
    col = indices(fields, "sparse_col_indices", where)
    values = (
        ints(data, f"{where}.data", np.int64) if dtype == "int64" else floats(data, f"{where}.data")
    )
    try:
        return TensorData(values, dtype, shape, crow, col)
    except ValueError as error:
        raise WireFormatError(f"{len(data)} values, shape {shape}: {error}", field=where) from error

"""The protobuf layout of what messages are made of: arrays, tensors, chunks, provenance.

Arrays travel as little-endian bytes and come back as read-only views of the received buffer where
the dtype allows. Knows nothing of the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError, Message

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    DmelChunk,
    EncodedTextChunk,
    ImageChunk,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    TensorData,
)
from tinker_ray.wire import tinker_public_pb2 as pb

if TYPE_CHECKING:
    import numpy.typing as npt

    from tinker_ray.types import ImageFormat, ModelInputChunk, TensorDtype

M = TypeVar("M", bound=Message)

DTYPES: dict[str, tuple[pb.DType, str]] = {
    "float32": (pb.DTYPE_FLOAT32, "<f4"),
    "int64": (pb.DTYPE_INT64, "<i8"),
}
"""How the public dtypes are sent."""
_LAYOUTS: dict[int, str] = {
    pb.DTYPE_FLOAT32: "<f4",
    pb.DTYPE_INT64: "<i8",
    pb.DTYPE_INT32: "<i4",
    pb.DTYPE_BFLOAT16: "<u2",
}


def parse(message: M, content: bytes) -> M:
    """Read bytes into a message.

    Raises:
        WireFormatError: They are no such message.
    """
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise WireFormatError(f"the bytes are not a protobuf {name}", field=name) from error
    return message


# --- arrays and tensors ---------------------------------------------------------------------------


def read_array(content: bytes, layout: str, where: str) -> np.ndarray[Any, Any]:
    """View bytes as an array.

    Raises:
        WireFormatError: They are no whole number of values.
    """
    if len(content) % np.dtype(layout).itemsize:
        raise WireFormatError(f"{len(content)} bytes are not whole {layout} values", field=where)
    return np.frombuffer(content, dtype=layout)


def read_dtype(number: int, where: str) -> tuple[TensorDtype, str]:
    """Give the public dtype of a wire dtype, and the layout of its bytes.

    Raises:
        WireFormatError: The wire dtype is unknown.
    """
    if number not in _LAYOUTS:
        raise WireFormatError(f"unknown dtype {number}", field=f"{where}.dtype")
    layout = _LAYOUTS[number]
    return ("int64" if layout.startswith("<i") else "float32"), layout


def widen(values: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """Turn bfloat16 bit patterns into the float32 values that they stand for; leave the rest."""
    if layout == "<u2":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def write_tensor(message: pb.Tensor, tensor: TensorData) -> None:
    """Write a tensor in its own layout."""
    number, layout = DTYPES[tensor.dtype]
    message.dtype = number
    message.shape.extend(tensor.values.shape if tensor.shape is None else tensor.shape)
    values = np.ascontiguousarray(tensor.values, dtype=layout).tobytes()
    if (indices := tensor.csr_indices) is None:
        message.dense = values
        return
    message.sparse_csr.values = values
    message.sparse_csr.crow_indices, message.sparse_csr.col_indices = (
        np.ascontiguousarray(array, dtype="<i8").tobytes() for array in indices
    )


def read_tensor(message: pb.Tensor, where: str) -> TensorData:
    """Read a tensor, dense or sparse.

    Raises:
        WireFormatError: Its parts do not fit each other.
    """
    dtype, layout = read_dtype(message.dtype, where)
    shape = list(message.shape)
    if message.WhichOneof("encoding") == "sparse_csr":
        sparse = message.sparse_csr
        return make_tensor(
            widen(read_array(sparse.values, layout, where), layout),
            dtype,
            shape,
            where,
            crow=read_array(sparse.crow_indices, "<i8", f"{where}.sparse_crow_indices"),
            col=read_array(sparse.col_indices, "<i8", f"{where}.sparse_col_indices"),
        )
    return make_tensor(widen(read_array(message.dense, layout, where), layout), dtype, shape, where)


def make_tensor(  # noqa: PLR0913 - the parts of a tensor, and where it is
    values: np.ndarray[Any, Any],
    dtype: TensorDtype,
    shape: list[int],
    where: str,
    *,
    crow: npt.NDArray[Any] | None = None,
    col: npt.NDArray[Any] | None = None,
) -> TensorData:
    """Put a tensor together.

    Raises:
        WireFormatError: The parts do not fit each other.
    """
    try:
        return TensorData(values, dtype, shape, crow, col)
    except ValueError as error:
        raise WireFormatError(
            f"{values.size} values, shape {shape}: {error}", field=where
        ) from error


# --- chunks ---------------------------------------------------------------------------------------


def write_chunk(message: pb.Chunk, chunk: ModelInputChunk, where: str) -> None:
    """Write a chunk that is not text.

    Raises:
        WireFormatError: It is a pointer to an image.
    """
    if isinstance(chunk, DmelChunk):
        message.dmel.dmel = chunk.dmel
    elif isinstance(chunk, ImageChunk):
        message.image.data = chunk.data
        message.image.format = chunk.format
        if chunk.expected_tokens is not None:
            message.image.expected_tokens = chunk.expected_tokens
    else:
        reason = f"{type(chunk).__name__} cannot be sent in a training batch: send the image itself"
        raise WireFormatError(reason, field=where)


def read_chunk(message: pb.Chunk, where: str) -> ModelInputChunk:
    """Read a chunk.

    Raises:
        WireFormatError: It is of no known kind, or its content does not fit.
    """
    kind = message.WhichOneof("chunk")
    if kind == "encoded_text":
        return EncodedTextChunk(read_array(message.encoded_text.tokens, "<i4", f"{where}.tokens"))
    if kind == "dmel":
        return DmelChunk(message.dmel.dmel)
    if kind == "image":
        image = message.image
        if image.format not in {"png", "jpeg"}:
            raise WireFormatError(f"unknown image format {image.format!r}", field=f"{where}.format")
        expected = image.expected_tokens if image.HasField("expected_tokens") else None
        return ImageChunk(image.data, cast("ImageFormat", image.format), expected)
    raise WireFormatError(f"unsupported chunk {kind or 'without content'}", field=where)


# --- provenance -----------------------------------------------------------------------------------


def write_span(
    message: pb.ProvenanceSpan, span: PromptProvenanceSpan | SampledProvenanceSpan
) -> None:
    """Write a run of tokens."""
    is_sampled = isinstance(span, SampledProvenanceSpan)
    run = message.sampled_tokens if is_sampled else message.prompt_tokens
    run.sequence_id, run.offset, run.length = span.sequence_id, span.offset, span.length


def read_span(
    message: pb.ProvenanceSpan, where: str
) -> PromptProvenanceSpan | SampledProvenanceSpan:
    """Read a run of tokens.

    Raises:
        WireFormatError: It is of no known kind, or names no run.
    """
    kind = message.WhichOneof("span")
    if kind is None:
        raise WireFormatError("a span has prompt_tokens or sampled_tokens", field=where)
    run = message.sampled_tokens if kind == "sampled_tokens" else message.prompt_tokens
    cls = SampledProvenanceSpan if kind == "sampled_tokens" else PromptProvenanceSpan
    try:
        return cls(sequence_id=run.sequence_id, offset=run.offset, length=run.length)
    except ValueError as error:
        raise WireFormatError(str(error), field=f"{where}.{kind}") from error

"""Writing the datums of a batch in protobuf, each array copied once.

A protobuf message copies bulk data three times: into bytes, into itself, into what it serializes
to. Here text and dense tensors stay where they are until everything is joined. What is small or
rare is left to the messages. Map entries go out in the order of the datum's own keys.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinker_ray.errors import WireFormatError
from tinker_ray.types import EncodedTextChunk
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.proto_parts import DTYPES, write_chunk, write_span, write_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tinker_ray.types import Datum, ModelInputChunk, TensorData

    Part: TypeAlias = bytes | memoryview

_DELIMITED = 2
"""The wire type of what has a length: bytes, texts, messages, packed numbers."""
_DATA = pb.ForwardBackwardRequest.DATA_FIELD_NUMBER
_MODEL_INPUT = pb.Datum.MODEL_INPUT_FIELD_NUMBER
_LOSS_FN_INPUTS = pb.Datum.LOSS_FN_INPUTS_FIELD_NUMBER
_KEY, _VALUE = 1, 2
"""Of an entry of a map."""


def write_data(data: Sequence[Datum]) -> list[Part]:
    """Give the fields of a request that hold its datums, to be joined with the others.

    Raises:
        WireFormatError: A value cannot travel in protobuf.
    """
    parts: list[Part] = []
    for index, datum in enumerate(data):
        parts += _field(_DATA, _datum(datum, f"data[{index}]"))
    return parts


def _field(number: int, parts: list[Part]) -> list[Part]:
    """Wrap parts as one field: they are a message, or bytes."""
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    return [_head(number, size), *parts]


@lru_cache(1024)
def _head(number: int, size: int) -> bytes:
    """Give the tag and the size of a field; those of a batch are mostly alike."""
    return _varint(number << 3 | _DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _datum(datum: Datum, where: str) -> list[Part]:
    parts: list[Part] = []
    for index, chunk in enumerate(datum.model_input.chunks):
        parts += _field(_MODEL_INPUT, _chunk(chunk, f"{where}.model_input.chunks[{index}]"))
    for key, tensor in datum.loss_fn_inputs.items():
        entry = [_key(key), *_field(_VALUE, _tensor(tensor))]
        parts += _field(_LOSS_FN_INPUTS, entry)
    if datum.model_input_spans is None and datum.loss_fn_input_spans is None:
        return parts
    spans = pb.Datum()
    for span in datum.model_input_spans or ():
        write_span(spans.model_input_spans.add(), span)
    for span in datum.loss_fn_input_spans or ():
        write_span(spans.loss_fn_input_spans.add(), span)
    return [*parts, spans.SerializeToString()]


@lru_cache
def _key(key: str) -> bytes:
    return b"".join(_field(_KEY, [key.encode()]))


def _chunk(chunk: ModelInputChunk, where: str) -> list[Part]:
    if isinstance(chunk, EncodedTextChunk):
        tokens = _field(pb.EncodedTextChunk.TOKENS_FIELD_NUMBER, [_tokens(chunk.tokens, where)])
        return _field(pb.Chunk.ENCODED_TEXT_FIELD_NUMBER, tokens)
    message = pb.Chunk()
    write_chunk(message, chunk, where)
    return [message.SerializeToString()]


def _tokens(tokens: Sequence[int] | npt.NDArray[np.integer], where: str) -> Part:
    if isinstance(tokens, np.ndarray):
        as_sent = np.ascontiguousarray(tokens, dtype="<i4")
        if as_sent is tokens or np.array_equal(tokens, as_sent):
            return as_sent.data
    else:
        try:
            return struct.pack(f"<{len(tokens)}i", *tokens)  # twice as fast as an array of a list
        except struct.error:
            pass
    raise WireFormatError("token ids are integers that fit int32", field=f"{where}.tokens")


def _tensor(tensor: TensorData) -> list[Part]:
    if tensor.is_sparse:
        message = pb.Tensor()
        write_tensor(message, tensor)
        return [message.SerializeToString()]
    number, layout = DTYPES[tensor.dtype]
    values = np.ascontiguousarray(tensor.values, dtype=layout)
    shape = tensor.values.shape if tensor.shape is None else tensor.shape
    return [*_field(pb.Tensor.DENSE_FIELD_NUMBER, [values.data]), _kind(number, tuple(shape))]


@lru_cache
def _kind(number: pb.DType, shape: tuple[int, ...]) -> bytes:
    """Give the fields of a tensor beside its values; those of a batch are mostly alike."""
    return pb.Tensor(dtype=number, shape=shape).SerializeToString()

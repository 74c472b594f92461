"""The protobuf layout of training batches, their results and samples (see tinker_public.proto).

Arrays travel as little-endian bytes and come back as read-only views of the received buffer where
the dtype allows. Knows nothing of content types or of what a loss means.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError, Message

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageChunk,
    ModelInput,
    SampledSequence,
    SampleResponse,
    TensorData,
    TopkLogprobs,
)
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.types import ImageFormat, ModelInputChunk, StopReason, TensorDtype

M = TypeVar("M", bound=Message)

_DTYPES: dict[str, tuple[pb.DType, str]] = {
    "float32": (pb.DTYPE_FLOAT32, "<f4"),
    "int64": (pb.DTYPE_INT64, "<i8"),
}
_LAYOUTS: dict[int, str] = {
    pb.DTYPE_FLOAT32: "<f4",
    pb.DTYPE_INT64: "<i8",
    pb.DTYPE_INT32: "<i4",
    pb.DTYPE_BFLOAT16: "<u2",
}
_STOP_REASONS: dict[StopReason, pb.StopReason] = {
    "stop": pb.STOP_REASON_STOP,
    "length": pb.STOP_REASON_LENGTH,
}


# --- training batches ---------------------------------------------------------------------------


def encode_forward_backward(request: ForwardBackwardRequest) -> bytes:
    """Encode a batch; the numeric loss settings are written twice, for older servers too."""
    message = pb.ForwardBackwardRequest(
        model_id=request.model_id,
        seq_id=request.seq_id or 0,
        loss_fn=request.loss_fn,
        forward_only=request.forward_only,
    )
    for key, value in request.loss_fn_config.items():
        if isinstance(value, str):
            message.loss_fn_config_v2[key].text = value
        else:
            message.loss_fn_config_v2[key].number = value
            message.loss_fn_config[key] = value
    for index, datum in enumerate(request.data):
        _write_datum(message.data.add(), datum, f"data[{index}]")
    return message.SerializeToString()


def _write_datum(message: pb.Datum, datum: Datum, where: str) -> None:
    for index, chunk in enumerate(datum.model_input.chunks):
        _write_chunk(message.model_input.add(), chunk, f"{where}.model_input.chunks[{index}]")
    for key, tensor in datum.loss_fn_inputs.items():
        _write_tensor(message.loss_fn_inputs[key], tensor)


def _write_chunk(message: pb.Chunk, chunk: ModelInputChunk, where: str) -> None:
    if isinstance(chunk, EncodedTextChunk):
        message.encoded_text.tokens = _token_bytes(chunk.tokens, f"{where}.tokens")
    elif isinstance(chunk, ImageChunk):
        message.image.data = chunk.data
        message.image.format = chunk.format
        if chunk.expected_tokens is not None:
            message.image.expected_tokens = chunk.expected_tokens
    else:
        reason = f"{type(chunk).__name__} cannot be sent in a training batch: send the image itself"
        raise WireFormatError(reason, field=where)


def _token_bytes(tokens: Sequence[int] | npt.NDArray[np.integer], where: str) -> bytes:
    given = np.asarray(tokens)
    as_sent = given.astype("<i4", casting="unsafe")
    if given.size and not (given.dtype.kind in "iu" and np.array_equal(given, as_sent)):
        raise WireFormatError("token ids are integers that fit int32", field=where)
    return as_sent.tobytes()


def _write_tensor(message: pb.Tensor, tensor: TensorData) -> None:
    number, layout = _DTYPES[tensor.dtype]
    message.dtype = number
    message.shape.extend(tensor.values.shape if tensor.shape is None else tensor.shape)
    values = np.ascontiguousarray(tensor.values, dtype=layout).tobytes()
    if tensor.is_sparse:
        message.sparse_csr.values = values
        message.sparse_csr.crow_indices = np.asarray(tensor.sparse_crow_indices, "<i8").tobytes()
        message.sparse_csr.col_indices = np.asarray(tensor.sparse_col_indices, "<i8").tobytes()
    else:
        message.dense = values


def decode_forward_backward(content: bytes) -> ForwardBackwardRequest:
    """Decode a batch; a ``seq_id`` of 0 means that none was given."""
    message = _parse(pb.ForwardBackwardRequest(), content)
    config: dict[str, float | str] = dict(message.loss_fn_config)
    for key, value in message.loss_fn_config_v2.items():
        config[key] = value.text if value.WhichOneof("value") == "text" else value.number
    return ForwardBackwardRequest(
        model_id=message.model_id,
        seq_id=message.seq_id or None,
        data=[_read_datum(datum, f"data[{index}]") for index, datum in enumerate(message.data)],
        loss_fn=message.loss_fn,
        loss_fn_config=config,
        forward_only=message.forward_only,
    )


def _read_datum(message: pb.Datum, where: str) -> Datum:
    chunks = [
        _read_chunk(chunk, f"{where}.model_input.chunks[{index}]")
        for index, chunk in enumerate(message.model_input)
    ]
    inputs = {
        key: _read_tensor(tensor, f"{where}.loss_fn_inputs.{key}")
        for key, tensor in message.loss_fn_inputs.items()
    }
    return Datum(ModelInput(chunks=chunks), inputs)


def _read_chunk(message: pb.Chunk, where: str) -> ModelInputChunk:
    kind = message.WhichOneof("chunk")
    if kind == "encoded_text":
        return EncodedTextChunk(_array(message.encoded_text.tokens, "<i4", f"{where}.tokens"))
    if kind == "image":
        image = message.image
        if image.format not in {"png", "jpeg"}:
            raise WireFormatError(f"unknown image format {image.format!r}", field=f"{where}.format")
        expected = image.expected_tokens if image.HasField("expected_tokens") else None
        return ImageChunk(image.data, cast("ImageFormat", image.format), expected)
    raise WireFormatError(f"unsupported chunk {kind or 'without content'}", field=where)


def _read_tensor(message: pb.Tensor, where: str) -> TensorData:
    dtype, layout = _dtype(message.dtype, where)
    shape = list(message.shape)
    if message.WhichOneof("encoding") == "sparse_csr":
        sparse = message.sparse_csr
        return _tensor(
            _widen(_array(sparse.values, layout, where), layout),
            dtype,
            shape,
            where,
            crow=_array(sparse.crow_indices, "<i8", f"{where}.sparse_crow_indices").tolist(),
            col=_array(sparse.col_indices, "<i8", f"{where}.sparse_col_indices").tolist(),
        )
    return _tensor(_widen(_array(message.dense, layout, where), layout), dtype, shape, where)


def _tensor(  # noqa: PLR0913 - the parts of a tensor, and where it is
    values: np.ndarray[Any, Any],
    dtype: TensorDtype,
    shape: list[int],
    where: str,
    *,
    crow: list[int] | None = None,
    col: list[int] | None = None,
) -> TensorData:
    try:
        return TensorData(values, dtype, shape, crow, col)
    except ValueError as error:
        raise WireFormatError(
            f"{values.size} values, shape {shape}: {error}", field=where
        ) from error


# --- results of training ------------------------------------------------------------------------


def encode_output(output: ForwardBackwardOutput) -> bytes:
    """Encode a result as records whose fields are batched over neighbouring datums of one shape.

    Raises:
        WireFormatError: The datums' outputs have different keys.
    """
    message = pb.ForwardBackwardOutput(loss_fn_output_type=output.loss_fn_output_type)
    message.metrics.update(output.metrics)
    keys = {frozenset(item) for item in output.loss_fn_outputs}
    for key in frozenset.union(*keys) - frozenset.intersection(*keys) if keys else ():
        raise WireFormatError("differs between datums in presence", field=key)
    for _, alike in itertools.groupby(output.loss_fn_outputs, key=_shape_of_fields):
        datums = list(alike)
        record = message.loss_fn_outputs.add(
            type_tag=output.loss_fn_output_type, num_datums=len(datums)
        )
        for key in datums[0]:
            _write_batched(record.fields[key], [datum[key] for datum in datums])
    return message.SerializeToString()


def _shape_of_fields(output: Mapping[str, TensorData]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {key: (tensor.dtype, tensor.values.shape[1:]) for key, tensor in output.items()}


def _write_batched(message: pb.BatchedTensor, tensors: Sequence[TensorData]) -> None:
    number, layout = _DTYPES[tensors[0].dtype]
    payloads = [np.ascontiguousarray(t.values, dtype=layout).tobytes() for t in tensors]
    message.data = b"".join(payloads)
    message.offsets = np.cumsum([0, *map(len, payloads)], dtype="<i8").tobytes()
    message.dtype = number
    message.trailing_shape.extend(tensors[0].values.shape[1:])


def decode_output(content: bytes) -> ForwardBackwardOutput:
    """Decode a result; several records are concatenated in order."""
    message = _parse(pb.ForwardBackwardOutput(), content)
    outputs: list[dict[str, TensorData]] = []
    for record in message.loss_fn_outputs:
        outputs.extend(_read_record(record))
    return ForwardBackwardOutput(
        loss_fn_output_type=message.loss_fn_output_type.rsplit(":", 1)[-1],
        loss_fn_outputs=outputs,
        metrics=dict(message.metrics),
    )


def _read_record(record: pb.ArrayRecord) -> list[dict[str, TensorData]]:
    columns = {key: _read_batched(field, key) for key, field in record.fields.items()}
    count = record.num_datums or max(map(len, columns.values()), default=0)
    for key, column in columns.items():
        if len(column) != count:
            raise WireFormatError(f"{len(column)} datums where {count} were announced", field=key)
    return [{key: column[index] for key, column in columns.items()} for index in range(count)]


def _read_batched(message: pb.BatchedTensor, where: str) -> list[TensorData]:
    dtype, layout = _dtype(message.dtype, where)
    offsets = _array(message.offsets, "<i8", f"{where}.offsets")
    trailing = tuple(message.trailing_shape)
    ordered = offsets.size > 0 and offsets[0] >= 0 and bool(np.all(np.diff(offsets) >= 0))
    if not ordered or offsets[-1] > len(message.data):
        raise WireFormatError("offsets do not lie in the data", field=where)
    row = math.prod(trailing)
    tensors = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        values = _widen(_array(message.data[start:stop], layout, where), layout)
        if any(size <= 0 for size in trailing) or values.size % row:
            raise WireFormatError(f"{values.size} values in rows of shape {trailing}", field=where)
        tensors.append(_tensor(values, dtype, [values.size // row, *trailing], where))
    return tensors


def _widen(values: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """Turn bfloat16 bit patterns into the float32 values that they stand for; leave the rest."""
    if layout == "<u2":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


# --- samples ------------------------------------------------------------------------------------


def encode_sample_response(response: SampleResponse) -> bytes:
    """Encode what was sampled."""
    message = pb.SampleResponse(prompt_cache_hit_tokens=response.prompt_cache_hit_tokens)
    for sequence in response.sequences:
        item = message.sequences.add(
            stop_reason=_STOP_REASONS[sequence.stop_reason],
            tokens=np.asarray(sequence.tokens_np, dtype="<i4").tobytes(),
        )
        if sequence.logprobs_np is not None:
            item.logprobs = np.asarray(sequence.logprobs_np, dtype="<f4").tobytes()
    if response.prompt_logprobs_np is not None:
        message.prompt_logprobs = np.asarray(response.prompt_logprobs_np, dtype="<f4").tobytes()
    if (topk := response.topk_prompt_logprobs_np) is not None:
        length, k = topk.token_ids.shape
        message.topk_prompt_logprobs.token_ids = topk.token_ids.astype("<i4").tobytes()
        message.topk_prompt_logprobs.logprobs = topk.logprobs.astype("<f4").tobytes()
        message.topk_prompt_logprobs.k = k
        message.topk_prompt_logprobs.length = length
    return message.SerializeToString()


def decode_sample_response(content: bytes, sequence_ids: Sequence[str]) -> SampleResponse:
    """Decode what was sampled."""
    message = _parse(pb.SampleResponse(), content)
    sequences = []
    for index, item in enumerate(message.sequences):
        logprobs = _array(item.logprobs, "<f4", f"sequences[{index}].logprobs")
        sequences.append(
            SampledSequence(
                stop_reason=_stop_reason(item.stop_reason, f"sequences[{index}].stop_reason"),
                tokens_np=_array(item.tokens, "<i4", f"sequences[{index}].tokens"),
                logprobs_np=logprobs if item.logprobs else None,
                sequence_id=sequence_ids[index] if index < len(sequence_ids) else "",
            )
        )
    prompt_logprobs = _array(message.prompt_logprobs, "<f4", "prompt_logprobs")
    topk = message.topk_prompt_logprobs if message.HasField("topk_prompt_logprobs") else None
    return SampleResponse(
        sequences=sequences,
        prompt_logprobs_np=prompt_logprobs if message.prompt_logprobs else None,
        topk_prompt_logprobs_np=None if topk is None else _read_topk(topk),
        prompt_cache_hit_tokens=message.prompt_cache_hit_tokens,
    )


def _read_topk(message: pb.TopkLogprobs) -> TopkLogprobs:
    where, shape = "topk_prompt_logprobs", (message.length, message.k)
    token_ids = _array(message.token_ids, "<i4", where)
    logprobs = _array(message.logprobs, "<f4", where)
    if not token_ids.size == logprobs.size == message.length * message.k:
        raise WireFormatError(f"{token_ids.size} cells do not fill {shape}", field=where)
    return TopkLogprobs(token_ids.reshape(shape), logprobs.reshape(shape))


# --- parts --------------------------------------------------------------------------------------


def _parse(message: M, content: bytes) -> M:
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise WireFormatError(f"the bytes are not a protobuf {name}", field=name) from error
    return message


def _array(content: bytes, layout: str, where: str) -> np.ndarray[Any, Any]:
    if len(content) % np.dtype(layout).itemsize:
        raise WireFormatError(f"{len(content)} bytes are not whole {layout} values", field=where)
    return np.frombuffer(content, dtype=layout)


def _dtype(number: int, where: str) -> tuple[TensorDtype, str]:
    if number not in _LAYOUTS:
        raise WireFormatError(f"unknown dtype {number}", field=f"{where}.dtype")
    layout = _LAYOUTS[number]
    return ("int64" if layout.startswith("<i") else "float32"), layout


def _stop_reason(number: int, where: str) -> StopReason:
    for reason, known in _STOP_REASONS.items():
        if known == number:
            return reason
    raise WireFormatError(f"unknown stop reason {number}", field=where)

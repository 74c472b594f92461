"""The protobuf layout of training batches and their results (see tinker_public.proto).

Knows nothing of content types or of what a loss means.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tinker_ray.errors import WireFormatError
from tinker_ray.types import Datum, ForwardBackwardOutput, ModelInput, TensorData
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.proto_bulk import write_data
from tinker_ray.wire.proto_parts import (
    DTYPES,
    make_tensor,
    parse,
    read_array,
    read_chunk,
    read_dtype,
    read_span,
    read_tensor,
    widen,
)
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.types import ProvenanceSpans

    Column: TypeAlias = npt.NDArray[Any]

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
    return b"".join([message.SerializeToString(), *write_data(request.data)])


def decode_forward_backward(content: bytes) -> ForwardBackwardRequest:
    """Decode a batch; a ``seq_id`` of 0 means that none was given."""
    message = parse(pb.ForwardBackwardRequest(), content)
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
        read_chunk(chunk, f"{where}.model_input.chunks[{index}]")
        for index, chunk in enumerate(message.model_input)
    ]
    inputs = {
        key: read_tensor(tensor, f"{where}.loss_fn_inputs.{key}")
        for key, tensor in message.loss_fn_inputs.items()
    }
    input_spans = _read_spans(message.model_input_spans, f"{where}.model_input_spans")
    target_spans = _read_spans(message.loss_fn_input_spans, f"{where}.loss_fn_input_spans")
    if (input_spans or target_spans) is None:
        return Datum(ModelInput(chunks=chunks), inputs)
    try:
        return Datum(ModelInput(chunks=chunks), inputs, input_spans or [], target_spans or [])
    except ValueError as error:
        raise WireFormatError(str(error), field=where) from error


def _read_spans(spans: Sequence[pb.ProvenanceSpan], where: str) -> ProvenanceSpans | None:
    """Read runs; a repeated field without any is one that was not sent."""
    return [read_span(span, f"{where}[{index}]") for index, span in enumerate(spans)] or None


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
    columns = [{key: t.to_numpy() for key, t in item.items()} for item in output.loss_fn_outputs]
    for _, alike in itertools.groupby(columns, key=_shape_of_fields):
        datums = list(alike)
        record = message.loss_fn_outputs.add(
            type_tag=output.loss_fn_output_type, num_datums=len(datums)
        )
        for key in datums[0]:
            _write_batched(record.fields[key], [datum[key] for datum in datums])
    return message.SerializeToString()


def _shape_of_fields(columns: Mapping[str, Column]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {key: (str(array.dtype), array.shape[1:]) for key, array in columns.items()}


def _write_batched(message: pb.BatchedTensor, arrays: Sequence[Column]) -> None:
    number, layout = DTYPES[str(arrays[0].dtype)]
    payloads = [np.ascontiguousarray(array, dtype=layout).tobytes() for array in arrays]
    message.data = b"".join(payloads)
    message.offsets = np.cumsum([0, *map(len, payloads)], dtype="<i8").tobytes()
    message.dtype = number
    message.trailing_shape.extend(arrays[0].shape[1:])


def decode_output(content: bytes) -> ForwardBackwardOutput:
    """Decode a result; several records are concatenated in order."""
    message = parse(pb.ForwardBackwardOutput(), content)
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
    dtype, layout = read_dtype(message.dtype, where)
    offsets = read_array(message.offsets, "<i8", f"{where}.offsets")
    trailing = tuple(message.trailing_shape)
    ordered = offsets.size > 0 and offsets[0] >= 0 and bool(np.all(np.diff(offsets) >= 0))
    if not ordered or offsets[-1] > len(message.data):
        raise WireFormatError("offsets do not lie in the data", field=where)
    row = math.prod(trailing)
    tensors = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        values = widen(read_array(message.data[start:stop], layout, where), layout)
        if any(size <= 0 for size in trailing) or values.size % row:
            raise WireFormatError(f"{values.size} values in rows of shape {trailing}", field=where)
        tensors.append(make_tensor(values, dtype, [values.size // row, *trailing], where))
    return tensors

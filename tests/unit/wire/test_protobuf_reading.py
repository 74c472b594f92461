"""What our encoder never writes and other servers may: other dtypes, several records, no counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tinker_ray.types import ForwardBackwardOutput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire import tinker_public_pb2 as pb

BFLOAT16_BITS = np.array([0x3F80, 0xC020, 0x7FC0, 0x0001], dtype="<u2")
BFLOAT16_VALUES = np.array([0x3F800000, 0xC0200000, 0x7FC00000, 0x00010000], np.uint32).view(
    np.float32
)


def batched(
    dtype: pb.DType, payloads: list[npt.NDArray[np.generic]], trailing: tuple[int, ...] = ()
) -> pb.BatchedTensor:
    parts = [payload.tobytes() for payload in payloads]
    return pb.BatchedTensor(
        data=b"".join(parts),
        offsets=np.cumsum([0, *map(len, parts)], dtype="<i8").tobytes(),
        dtype=dtype,
        trailing_shape=trailing,
    )


def record(num_datums: int, **fields: pb.BatchedTensor) -> pb.ArrayRecord:
    return pb.ArrayRecord(type_tag="T", fields=fields, num_datums=num_datums)


def decode(*records: pb.ArrayRecord, type_name: str = "T") -> ForwardBackwardOutput:
    message = pb.ForwardBackwardOutput(loss_fn_output_type=type_name, loss_fn_outputs=records)
    return codec.decode_forward_backward_output(message.SerializeToString(), codec.PROTOBUF)


def test_bfloat16_results_are_widened_bit_for_bit() -> None:
    output = decode(record(2, x=batched(pb.DTYPE_BFLOAT16, [BFLOAT16_BITS[:1], BFLOAT16_BITS[1:]])))
    assert [
        TensorData(BFLOAT16_VALUES[:1], "float32"),
        TensorData(BFLOAT16_VALUES[1:], "float32"),
    ] == [item["x"] for item in output.loss_fn_outputs]


def test_int32_results_are_widened() -> None:
    payload = np.array([1, -(2**31)], dtype="<i4")
    output = decode(record(1, x=batched(pb.DTYPE_INT32, [payload])))
    assert [{"x": TensorData([1, -(2**31)], "int64")}] == output.loss_fn_outputs


@pytest.mark.parametrize(
    "dtype,bits,expected",
    [
        (pb.DTYPE_BFLOAT16, BFLOAT16_BITS, TensorData(BFLOAT16_VALUES, "float32", [4])),
        (pb.DTYPE_INT32, np.array([7, -1, 0, 2], "<i4"), TensorData([7, -1, 0, 2], "int64", [4])),
    ],
)
def test_narrow_tensors_of_a_batch_are_widened(
    dtype: pb.DType, bits: npt.NDArray[np.generic], expected: TensorData
) -> None:
    message = pb.ForwardBackwardRequest(model_id="m")
    item = message.data.add()
    item.loss_fn_inputs["dense"].CopyFrom(pb.Tensor(dense=bits.tobytes(), dtype=dtype, shape=[4]))
    sparse = pb.SparseCsr(
        values=bits.tobytes(),
        crow_indices=np.array([0, 4], "<i8").tobytes(),
        col_indices=np.arange(4, dtype="<i8").tobytes(),
    )
    item.loss_fn_inputs["sparse"].CopyFrom(pb.Tensor(sparse_csr=sparse, dtype=dtype, shape=[1, 4]))
    decoded = codec.decode_forward_backward(message.SerializeToString(), codec.PROTOBUF)
    inputs = decoded.data[0].loss_fn_inputs
    assert expected == inputs["dense"]
    np.testing.assert_array_equal(expected.to_numpy()[None], inputs["sparse"].to_numpy())


def test_several_records_are_concatenated_each_with_its_own_shape() -> None:
    first = batched(pb.DTYPE_FLOAT32, [np.zeros(2, "<f4"), np.zeros(4, "<f4")], (2,))
    second = batched(pb.DTYPE_INT64, [np.arange(3, dtype="<i8")])
    output = decode(record(2, x=first), record(1, x=second))
    assert [[1, 2], [2, 2], [3]] == [item["x"].shape for item in output.loss_fn_outputs]


def test_without_a_count_the_first_field_tells_it() -> None:
    field = batched(pb.DTYPE_FLOAT32, [np.zeros(1, "<f4")] * 3)
    assert 3 == len(decode(record(0, x=field)).loss_fn_outputs)


def test_datums_without_outputs_are_counted() -> None:
    assert [{}, {}] == decode(record(2)).loss_fn_outputs


def test_no_records_are_no_outputs() -> None:
    assert [] == decode().loss_fn_outputs


def test_the_type_name_is_what_follows_its_last_colon() -> None:
    assert "TorchLossReturn" == decode(type_name="ns:sub:TorchLossReturn").loss_fn_output_type


def test_missing_prompt_logprobs_are_nan_and_rows_of_top_k_keep_their_width() -> None:
    message = pb.SampleResponse(
        prompt_logprobs=np.array([np.nan, -0.5], "<f4").tobytes(),
        topk_prompt_logprobs=pb.TopkLogprobs(
            token_ids=np.array([0, 0, 5, 0], "<i4").tobytes(),
            logprobs=np.array([-99999, -99999, -0.5, -99999], "<f4").tobytes(),
            k=2,
            length=2,
        ),
    )
    decoded = codec.decode_sample_response(message.SerializeToString(), codec.PROTOBUF)
    assert [None, -0.5] == decoded.prompt_logprobs
    assert [None, [(5, -0.5)]] == decoded.topk_prompt_logprobs

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ModelInput,
    SampledSequence,
    SampleResponse,
    TensorData,
)
from tinker_ray.wire import codec, json_value
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.request import ForwardBackwardRequest

DATUM = "forward_backward_input.data[0]"
TOKENS = "model_input.chunks[0].tokens"
NOT_NUMBERS = float("nan"), float("inf"), float("-inf")


def batch(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - malformed on purpose
    return {"data": [], "loss_fn": "ppo"} | changes


def datum(chunk: object = None, tensor: object = None) -> dict[str, Any]:
    return {
        "model_input": {"chunks": [{"tokens": [1]} if chunk is None else chunk]},
        "loss_fn_inputs": {} if tensor is None else {"weights": tensor},
    }


def training_body(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"model_id": "m", "seq_id": 1, "forward_backward_input": batch()} | changes


def with_datum(item: object) -> dict[str, Any]:
    return training_body(forward_backward_input=batch(data=[item]))


def tensor(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    fields = {"data": [1.0, 2.0], "dtype": "float32", "shape": [2]} | changes
    return with_datum(datum(tensor=fields))


WEIGHTS = f"{DATUM}.loss_fn_inputs.weights"
TRAINING_JSON: list[tuple[object, str]] = [
    ([], "body"),
    ("x", "body"),
    ({}, "forward_backward_input"),
    (training_body(model_id=None), "model_id"),
    (training_body(model_id=5), "model_id"),
    (training_body(seq_id="1"), "seq_id"),
    (training_body(seq_id=True), "seq_id"),
    (training_body(forward_backward_input=[]), "forward_backward_input"),
    ({"model_id": "m", "forward_input": {}}, "forward_input.data"),
    (training_body(forward_backward_input={"data": []}), "forward_backward_input.loss_fn"),
    (
        training_body(forward_backward_input=batch(loss_fn_config=[])),
        "forward_backward_input.loss_fn_config",
    ),
    (
        training_body(forward_backward_input=batch(loss_fn_config={"beta": [1]})),
        "forward_backward_input.loss_fn_config.beta",
    ),
    (
        training_body(forward_backward_input=batch(loss_fn_config={"beta": True})),
        "forward_backward_input.loss_fn_config.beta",
    ),
    (with_datum(7), DATUM),
    (with_datum({"model_input": {"chunks": []}}), f"{DATUM}.loss_fn_inputs"),
    (with_datum({"loss_fn_inputs": {}}), f"{DATUM}.model_input"),
    (with_datum({"loss_fn_inputs": {}, "model_input": {}}), f"{DATUM}.model_input.chunks"),
    (with_datum(datum(chunk=[])), f"{DATUM}.model_input.chunks[0]"),
    (with_datum(datum(chunk={"sound": "x"})), f"{DATUM}.model_input.chunks[0]"),
    (with_datum(datum(chunk={"dmel": "x"})), f"{DATUM}.model_input.chunks[0].dmel"),
    (with_datum(datum(chunk={"dmel": "é"})), f"{DATUM}.model_input.chunks[0].dmel"),
    (with_datum(datum(chunk={"tokens": "abc"})), f"{DATUM}.{TOKENS}"),
    (with_datum(datum(chunk={"tokens": [1.5]})), f"{DATUM}.{TOKENS}"),
    (with_datum(datum(chunk={"tokens": [True]})), f"{DATUM}.{TOKENS}"),
    (with_datum(datum(chunk={"tokens": [2**31]})), f"{DATUM}.{TOKENS}"),
    (
        with_datum(datum(chunk={"data": "AAAA", "format": "gif"})),
        f"{DATUM}.model_input.chunks[0].format",
    ),
    (
        with_datum(datum(chunk={"data": "%%%", "format": "png"})),
        f"{DATUM}.model_input.chunks[0].data",
    ),
    (
        with_datum(datum(chunk={"data": 5, "format": "png"})),
        f"{DATUM}.model_input.chunks[0].data",
    ),
    (
        with_datum(datum(chunk={"location": 5, "format": "png"})),
        f"{DATUM}.model_input.chunks[0].location",
    ),
    (
        with_datum(datum(chunk={"location": "x", "format": "png", "expected_tokens": "9"})),
        f"{DATUM}.model_input.chunks[0].expected_tokens",
    ),
    (with_datum(datum(tensor=[1.0])), WEIGHTS),
    (tensor(dtype="float64"), f"{WEIGHTS}.dtype"),
    (tensor(data=None), f"{WEIGHTS}.data"),
    (tensor(data=["a"]), f"{WEIGHTS}.data"),
    (tensor(data=[None]), f"{WEIGHTS}.data"),
    (tensor(data=[1e39]), f"{WEIGHTS}.data"),
    (tensor(data=[10**400]), f"{WEIGHTS}.data"),
    (tensor(dtype="int64"), f"{WEIGHTS}.data"),
    (tensor(dtype="int64", data=[2**63]), f"{WEIGHTS}.data"),
    (tensor(shape=[3]), WEIGHTS),
    (tensor(shape=[-1]), WEIGHTS),
    (tensor(shape=["2"]), f"{WEIGHTS}.shape"),
    (tensor(shape=[2.0]), f"{WEIGHTS}.shape"),
    (tensor(sparse_crow_indices=[0, 2]), WEIGHTS),
    (tensor(shape=[1, 2], sparse_crow_indices=[0, 2], sparse_col_indices=[0, 2]), WEIGHTS),
    (
        tensor(shape=[1, 2], sparse_crow_indices="x", sparse_col_indices=[0, 1]),
        f"{WEIGHTS}.sparse_crow_indices",
    ),
]


@pytest.mark.parametrize("body,field", TRAINING_JSON)
def test_a_malformed_json_batch_is_refused_by_its_field(body: object, field: str) -> None:
    with pytest.raises(WireFormatError) as caught:
        codec.decode_forward_backward(json.dumps(body).encode(), codec.JSON)
    assert field == caught.value.field
    assert field in str(caught.value)


PROMPT: dict[str, Any] = {"prompt": {"chunks": []}}


@pytest.mark.parametrize(
    "body,field",
    [
        ({}, "prompt"),
        ({"prompt": {"chunks": [{"tokens": [[1]]}]}}, "prompt.chunks[0].tokens"),
        (PROMPT | {"num_samples": "2"}, "num_samples"),
        (PROMPT | {"num_samples": 1.5}, "num_samples"),
        (PROMPT | {"sampling_session_id": 5}, "sampling_session_id"),
        (PROMPT | {"seq_id": "0"}, "seq_id"),
        (PROMPT | {"base_model": []}, "base_model"),
        (PROMPT | {"model_path": {}}, "model_path"),
        (PROMPT | {"prompt_logprobs": 1}, "prompt_logprobs"),
        (PROMPT | {"topk_prompt_logprobs": "5"}, "topk_prompt_logprobs"),
        (PROMPT | {"topk_sample_logprobs": 1.5}, "topk_sample_logprobs"),
        (PROMPT | {"prompt_alt_tokens_k": True}, "prompt_alt_tokens_k"),
        (PROMPT | {"prompt_logprobs_last_n": []}, "prompt_logprobs_last_n"),
        (PROMPT | {"record_stability_info": 1}, "record_stability_info"),
        (PROMPT | {"target_prompt_logprobs": 5}, "target_prompt_logprobs"),
        (
            PROMPT | {"target_prompt_logprobs": {"data": [1], "dtype": "int32"}},
            "target_prompt_logprobs.dtype",
        ),
        (
            PROMPT | {"target_prompt_logprobs": {"data": [0.5], "dtype": "int64"}},
            "target_prompt_logprobs.data",
        ),
        (PROMPT | {"sampling_params": []}, "sampling_params"),
        (PROMPT | {"sampling_params": {"temperature": -1}}, "sampling_params.temperature"),
        (PROMPT | {"sampling_params": {"stop": 5}}, "sampling_params.stop"),
        (PROMPT | {"sampling_params": {"max_tokens": [1]}}, "sampling_params.max_tokens"),
    ],
)
def test_a_malformed_sampling_request_is_refused_by_its_field(
    body: dict[str, Any], field: str
) -> None:
    with pytest.raises(WireFormatError) as caught:
        codec.decode_sample(json.dumps(body).encode())
    assert field == caught.value.field


OUTPUT: dict[str, Any] = {"loss_fn_output_type": "T", "loss_fn_outputs": [], "metrics": {}}
TENSOR = {"data": [1], "dtype": "int64"}


@pytest.mark.parametrize(
    "changes,field",
    [
        ({"loss_fn_output_type": None}, "loss_fn_output_type"),
        ({"loss_fn_outputs": None}, "loss_fn_outputs"),
        ({"loss_fn_outputs": [[]]}, "loss_fn_outputs[0]"),
        ({"loss_fn_outputs": [{"logprobs": 1}]}, "loss_fn_outputs[0].logprobs"),
        ({"loss_fn_outputs": [{}, {"x": TENSOR | {"dtype": "?"}}]}, "loss_fn_outputs[1].x.dtype"),
        ({"metrics": None}, "metrics"),
        ({"metrics": {"loss:sum": "1"}}, "metrics.loss:sum"),
        ({"metrics": {"loss:sum": True}}, "metrics.loss:sum"),
    ],
)
def test_a_malformed_json_result_is_refused_by_its_field(
    changes: dict[str, Any], field: str
) -> None:
    content = json.dumps(OUTPUT | changes).encode()
    with pytest.raises(WireFormatError) as caught:
        codec.decode_forward_backward_output(content, codec.JSON)
    assert field == caught.value.field


SEQUENCE = {"stop_reason": "stop", "tokens": [1], "logprobs": [-0.5]}


@pytest.mark.parametrize(
    "body,field",
    [
        ({}, "sequences"),
        ({"sequences": [1]}, "sequences[0]"),
        ({"sequences": [SEQUENCE | {"stop_reason": "eos"}]}, "sequences[0].stop_reason"),
        ({"sequences": [SEQUENCE, SEQUENCE | {"tokens": None}]}, "sequences[1].tokens"),
        ({"sequences": [SEQUENCE | {"logprobs": [None]}]}, "sequences[0].logprobs"),
        ({"sequences": [], "prompt_logprobs": ["x"]}, "prompt_logprobs"),
        ({"sequences": [], "prompt_logprobs": 1.0}, "prompt_logprobs"),
        ({"sequences": [], "topk_prompt_logprobs": {}}, "topk_prompt_logprobs"),
        ({"sequences": [], "topk_prompt_logprobs": [5]}, "topk_prompt_logprobs[0]"),
        ({"sequences": [], "topk_prompt_logprobs": [None, [5]]}, "topk_prompt_logprobs[1]"),
        ({"sequences": [], "topk_prompt_logprobs": [[[1, 2, 3]]]}, "topk_prompt_logprobs[0]"),
        ({"sequences": [], "topk_prompt_logprobs": [[["a", -1.0]]]}, "topk_prompt_logprobs[0]"),
        ({"sequences": [], "topk_prompt_logprobs": [[[1, "a"]]]}, "topk_prompt_logprobs[0]"),
    ],
)
def test_a_malformed_json_sample_is_refused_by_its_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(WireFormatError) as caught:
        codec.decode_sample_response(json.dumps(body).encode(), codec.JSON)
    assert field == caught.value.field


def test_sequence_ids_that_do_not_match_the_sequences_are_refused() -> None:
    sequence = SampledSequence("stop", "", np.array([1], dtype=np.int32))
    for proto in (True, False):
        body = codec.encode_sample_response(SampleResponse([sequence]), proto=proto)
        with pytest.raises(WireFormatError, match="1 sequences for 2"):
            codec.decode_sample_response(body.content, body.content_type, ["a", "b"])


# --- JSON itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"a":NaN}', b'{"a":-Infinity}', b"[" * 200_000, b'{"a":1}x']
)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(WireFormatError) as caught:
        json_value.loads(content)
    assert "body" == caught.value.field


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_json_carries_no_number_that_it_does_not_have(value: float) -> None:
    weights = {"weights": TensorData([value], "float32")}
    request = ForwardBackwardRequest("m", [Datum(ModelInput.from_ints([1]), weights)], "ppo")
    with pytest.raises(WireFormatError, match="forward_backward_input: JSON cannot carry this"):
        codec.encode_forward_backward(request, proto=False)
    assert (
        request.data
        == codec.decode_forward_backward(
            codec.encode_forward_backward(request, proto=True).content, codec.PROTOBUF
        ).data
    )


def test_json_carries_no_objects() -> None:
    with pytest.raises(WireFormatError, match="here: JSON cannot carry this"):
        json_value.dumps({"a": object()}, "here")


# --- protobuf -----------------------------------------------------------------------------------

Decoder = Callable[[bytes], object]


def decode_batch(content: bytes) -> object:
    return codec.decode_forward_backward(content, codec.PROTOBUF)


def decode_output(content: bytes) -> object:
    return codec.decode_forward_backward_output(content, codec.PROTOBUF)


def decode_sample(content: bytes) -> object:
    return codec.decode_sample_response(content, codec.PROTOBUF)


@pytest.mark.parametrize(
    "decode,name",
    [
        (decode_batch, "ForwardBackwardRequest"),
        (decode_output, "ForwardBackwardOutput"),
        (decode_sample, "SampleResponse"),
    ],
)
def test_what_is_no_protobuf_is_refused(decode: Decoder, name: str) -> None:
    with pytest.raises(WireFormatError, match=name):
        decode(b"\xff\xff\xff")


def proto_batch(*chunks: pb.Chunk, **tensors: pb.Tensor) -> bytes:
    message = pb.ForwardBackwardRequest(model_id="m")
    item = message.data.add()
    item.model_input.extend(chunks)
    for key, value in tensors.items():
        item.loss_fn_inputs[key].CopyFrom(value)
    return message.SerializeToString()


def proto_tensor(
    data: bytes = b"\0" * 8, dtype: pb.DType = pb.DTYPE_FLOAT32, shape: tuple[int, ...] = (2,)
) -> pb.Tensor:
    return pb.Tensor(dense=data, dtype=dtype, shape=shape)


def proto_sparse(crow: list[int], col: list[int], shape: tuple[int, ...] = (1, 2)) -> pb.Tensor:
    sparse = pb.SparseCsr(
        values=b"\0" * 8,
        crow_indices=np.array(crow, "<i8").tobytes(),
        col_indices=np.array(col, "<i8").tobytes(),
    )
    return pb.Tensor(sparse_csr=sparse, dtype=pb.DTYPE_FLOAT32, shape=shape)


CHUNK = "data[0].model_input.chunks[0]"
INPUT = "data[0].loss_fn_inputs.w"


@pytest.mark.parametrize(
    "content,field",
    [
        (proto_batch(pb.Chunk()), CHUNK),
        (proto_batch(pb.Chunk(image=pb.ImageChunk(format="gif"))), f"{CHUNK}.format"),
        (
            proto_batch(pb.Chunk(encoded_text=pb.EncodedTextChunk(tokens=b"abc"))),
            f"{CHUNK}.tokens",
        ),
        (proto_batch(w=proto_tensor(dtype=pb.DTYPE_UNSPECIFIED)), f"{INPUT}.dtype"),
        (proto_batch(w=proto_tensor(data=b"abc")), INPUT),
        (proto_batch(w=proto_tensor(shape=(3,))), INPUT),
        (proto_batch(w=proto_tensor(shape=(-1,))), INPUT),
        (proto_batch(w=proto_tensor(shape=(-1, -2))), INPUT),
        (proto_batch(w=proto_tensor(data=b"", shape=(2**62, 0))), INPUT),
        (proto_batch(w=proto_sparse([0, 1], [0])), INPUT),
        (proto_batch(w=proto_sparse([0, 2], [0, 2])), INPUT),
        (proto_batch(w=proto_sparse([0, 2], [0, 1], (2, 2))), INPUT),
        (proto_batch(w=proto_sparse([0, 2], [0, 1], (2,))), INPUT),
    ],
)
def test_a_malformed_protobuf_batch_is_refused_by_its_field(content: bytes, field: str) -> None:
    with pytest.raises(WireFormatError) as caught:
        decode_batch(content)
    assert field == caught.value.field


def proto_output(
    offsets: list[int],
    trailing: tuple[int, ...] = (),
    *,
    data: bytes = b"\0" * 16,
    num_datums: int = 2,
    dtype: int = pb.DTYPE_FLOAT32,
) -> bytes:
    message = pb.ForwardBackwardOutput(loss_fn_output_type="T")
    record = message.loss_fn_outputs.add(num_datums=num_datums)
    record.fields["logprobs"].CopyFrom(
        pb.BatchedTensor(
            data=data,
            offsets=np.array(offsets, "<i8").tobytes(),
            dtype=pb.DType.Name(dtype),
            trailing_shape=trailing,
        )
    )
    return message.SerializeToString()


@pytest.mark.parametrize(
    "content,field",
    [
        (proto_output([]), "logprobs"),
        (proto_output([0, 8, 17]), "logprobs"),
        (proto_output([0, 12, 8]), "logprobs"),
        (proto_output([-8, 0, 8]), "logprobs"),
        (proto_output([0, 3, 16]), "logprobs"),
        (proto_output([0, 8, 16], num_datums=3), "logprobs"),
        (proto_output([0, 4, 16], (2,)), "logprobs"),
        (proto_output([0, 8, 16], (0,)), "logprobs"),
        (proto_output([0, 8, 16], (-2,)), "logprobs"),
        (proto_output([0, 8, 16], (-1, -2)), "logprobs"),
        (proto_output([0, 0, 0], (2**32 + 1, 2**32 + 1)), "logprobs"),
        (proto_output([0, 8, 16], dtype=pb.DTYPE_UNSPECIFIED), "logprobs.dtype"),
    ],
)
def test_a_malformed_protobuf_result_is_refused_by_its_field(content: bytes, field: str) -> None:
    with pytest.raises(WireFormatError) as caught:
        decode_output(content)
    assert field == caught.value.field


def test_offsets_that_are_no_integers_are_refused() -> None:
    message = pb.ForwardBackwardOutput()
    message.loss_fn_outputs.add().fields["x"].CopyFrom(
        pb.BatchedTensor(offsets=b"abc", dtype=pb.DTYPE_FLOAT32)
    )
    with pytest.raises(WireFormatError, match=r"x\.offsets"):
        decode_output(message.SerializeToString())


SEEN = pb.ProvenanceSpan(prompt_tokens=pb.PromptProvenanceSpan(sequence_id="q", length=1))
DRAWN = pb.ProvenanceSpan(sampled_tokens=pb.SampledProvenanceSpan(sequence_id="q", length=-1))
NAMELESS = pb.ProvenanceSpan(sampled_tokens=pb.SampledProvenanceSpan(length=1))


@pytest.mark.parametrize(
    "spans,field",
    [
        ([pb.ProvenanceSpan()], "data[0].model_input_spans[0]"),
        ([SEEN, DRAWN], "data[0].model_input_spans[1].sampled_tokens"),
        ([NAMELESS], "data[0].model_input_spans[0].sampled_tokens"),
        ([SEEN], "data[0]"),
    ],
    ids=["empty", "negative", "nameless", "short"],
)
def test_malformed_provenance_is_refused_by_its_field(
    spans: list[pb.ProvenanceSpan], field: str
) -> None:
    message = pb.ForwardBackwardRequest(model_id="m")
    item = message.data.add(model_input_spans=spans)
    item.model_input.add().encoded_text.tokens = b"\0" * 8
    with pytest.raises(WireFormatError) as caught:
        decode_batch(message.SerializeToString())
    assert field == caught.value.field


def proto_sample(**fields: Any) -> bytes:  # noqa: ANN401
    message = pb.SampleResponse()
    message.sequences.add(**fields)
    return message.SerializeToString()


@pytest.mark.parametrize(
    "content,field",
    [
        (proto_sample(tokens=b"abc"), "sequences[0].tokens"),
        (proto_sample(logprobs=b"abc"), "sequences[0].logprobs"),
        (b"\x0a\x02\x08\x07", "sequences[0].stop_reason"),
        (pb.SampleResponse(prompt_logprobs=b"abc").SerializeToString(), "prompt_logprobs"),
        (
            proto_sample(topk_sampled_logprobs=pb.TopkLogprobs(k=1, length=1)),
            "sequences[0].topk_sampled_logprobs",
        ),
        (
            pb.SampleResponse(target_prompt_logprobs=proto_tensor(shape=(3,))).SerializeToString(),
            "target_prompt_logprobs",
        ),
        (
            pb.SampleResponse(
                prompt_alt_tokens=pb.PromptAltTokens(
                    tokens=proto_tensor(), logprobs=proto_tensor(dtype=pb.DTYPE_UNSPECIFIED)
                )
            ).SerializeToString(),
            "prompt_alt_tokens.logprobs.dtype",
        ),
        (
            pb.SampleResponse(
                topk_prompt_logprobs=pb.TopkLogprobs(
                    token_ids=b"\0" * 8, logprobs=b"\0" * 8, k=1, length=3
                )
            ).SerializeToString(),
            "topk_prompt_logprobs",
        ),
        (
            pb.SampleResponse(
                topk_prompt_logprobs=pb.TopkLogprobs(token_ids=b"abc")
            ).SerializeToString(),
            "topk_prompt_logprobs",
        ),
    ],
)
def test_a_malformed_protobuf_sample_is_refused_by_its_field(content: bytes, field: str) -> None:
    with pytest.raises(WireFormatError) as caught:
        decode_sample(content)
    assert field == caught.value.field


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([decode_batch, decode_output, decode_sample]))
def test_no_bytes_break_a_decoder(content: bytes, decode: Decoder) -> None:
    with contextlib.suppress(WireFormatError):
        decode(content)


# --- what cannot be sent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunk,field",
    [
        (ImageAssetPointerChunk("x", "png"), "data[1].model_input.chunks[0]"),
        (EncodedTextChunk([2**31]), "data[1].model_input.chunks[0].tokens"),
        (EncodedTextChunk(np.array([2**40])), "data[1].model_input.chunks[0].tokens"),
        (EncodedTextChunk([1.5]), "data[1].model_input.chunks[0].tokens"),  # type: ignore[list-item]
    ],
)
def test_chunks_that_protobuf_cannot_carry_are_refused(
    chunk: EncodedTextChunk | ImageAssetPointerChunk, field: str
) -> None:
    data = [Datum(ModelInput.empty()), Datum(ModelInput([chunk]))]
    with pytest.raises(WireFormatError) as caught:
        codec.encode_forward_backward(ForwardBackwardRequest("m", data, "ppo"), proto=True)
    assert field == caught.value.field


def test_results_of_which_one_lacks_a_field_cannot_be_batched() -> None:
    first = {"logprobs": TensorData([1.0], "float32")}
    output = ForwardBackwardOutput("T", [first, {}], {})
    with pytest.raises(WireFormatError, match="logprobs"):
        codec.encode_forward_backward_output(output, proto=True)

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.wire_values import batches, outputs, sample_requests, sample_responses
from tinker_ray.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ModelInput,
    SampledSequence,
    SampleResponse,
    TensorData,
    TopkLogprobs,
)
from tinker_ray.wire import codec
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

BOTH = st.booleans()


def assert_same_array(expected: npt.NDArray[Any] | None, actual: npt.NDArray[Any] | None) -> None:
    if expected is None or actual is None:
        assert expected is actual
        return
    assert expected.dtype == actual.dtype
    np.testing.assert_array_equal(expected, actual)


def assert_same_topk(expected: TopkLogprobs | None, actual: TopkLogprobs | None) -> None:
    if expected is None or actual is None:
        assert expected is actual
        return
    assert_same_array(expected.token_ids, actual.token_ids)
    assert_same_array(expected.logprobs, actual.logprobs)


def assert_same_response(expected: SampleResponse, actual: SampleResponse) -> None:
    assert len(expected.sequences) == len(actual.sequences)
    for one, other in zip(expected.sequences, actual.sequences, strict=True):
        assert (one.stop_reason, one.sequence_id) == (other.stop_reason, other.sequence_id)
        assert_same_array(one.tokens_np, other.tokens_np)
        assert_same_array(one.logprobs_np, other.logprobs_np)
        assert_same_topk(one.topk_logprobs_np, other.topk_logprobs_np)
    assert_same_array(expected.prompt_logprobs_np, actual.prompt_logprobs_np)
    assert_same_topk(expected.topk_prompt_logprobs_np, actual.topk_prompt_logprobs_np)
    assert expected.target_prompt_logprobs == actual.target_prompt_logprobs
    assert expected.prompt_cache_hit_tokens == actual.prompt_cache_hit_tokens
    assert expected.prompt_alt_tokens == actual.prompt_alt_tokens


def as_in_json(request: ForwardBackwardRequest) -> ForwardBackwardRequest:
    """JSON carries no sparse layout."""
    data = [
        Datum(
            datum.model_input,
            {
                key: TensorData.from_numpy(tensor.to_numpy()) if tensor.is_sparse else tensor
                for key, tensor in datum.loss_fn_inputs.items()
            },
        )
        for datum in request.data
    ]
    return replace(request, data=data)


@settings(max_examples=20, deadline=None)
@given(BOTH.flatmap(lambda proto: st.tuples(st.just(proto), batches(proto=proto))))
def test_training_batches_survive_both_encodings(case: tuple[bool, ForwardBackwardRequest]) -> None:
    proto, request = case
    body = codec.encode_forward_backward(request, proto=proto)
    assert (codec.PROTOBUF if proto else codec.JSON) == body.content_type
    expected = request if proto else as_in_json(request)
    assert expected == codec.decode_forward_backward(body.content, body.content_type)


@settings(max_examples=20, deadline=None)
@given(BOTH.flatmap(lambda proto: st.tuples(st.just(proto), outputs(proto=proto))))
def test_training_results_survive_both_encodings(case: tuple[bool, ForwardBackwardOutput]) -> None:
    proto, output = case
    body = codec.encode_forward_backward_output(output, proto=proto)
    assert output == codec.decode_forward_backward_output(body.content, body.content_type)


def test_results_of_several_widths_keep_their_order_in_both_encodings() -> None:
    shapes = [(3, 2), (1, 2), (2,), (1, 4), (2, 2)]
    outputs = [
        {"logprobs": TensorData.from_numpy(np.full(shape, index, np.float32))}
        for index, shape in enumerate(shapes)
    ]
    output = ForwardBackwardOutput("TorchLossReturn", outputs, {"loss:sum": 1.0})
    for proto in (True, False):
        body = codec.encode_forward_backward_output(output, proto=proto)
        assert output == codec.decode_forward_backward_output(body.content, body.content_type)


@settings(max_examples=20, deadline=None)
@given(sample_requests)
def test_sampling_requests_survive_json(request: SampleRequest) -> None:
    assert request == codec.decode_sample(codec.encode_sample(request).content)


@settings(max_examples=20, deadline=None)
@given(BOTH.flatmap(lambda proto: st.tuples(st.just(proto), sample_responses(proto=proto))))
def test_samples_survive_both_encodings(case: tuple[bool, SampleResponse]) -> None:
    proto, response = case
    body = codec.encode_sample_response(response, proto=proto)
    assert_same_response(response, codec.decode_sample_response(body.content, body.content_type))


def test_prompt_cache_hits_travel_in_protobuf_only() -> None:
    response = SampleResponse([], prompt_cache_hit_tokens=7)
    for proto, expected in ((True, 7), (False, 0)):
        body = codec.encode_sample_response(response, proto=proto)
        decoded = codec.decode_sample_response(body.content, body.content_type)
        assert expected == decoded.prompt_cache_hit_tokens


def test_empty_logprobs_are_none_in_protobuf() -> None:
    empty = np.zeros(0, dtype=np.float32)
    response = SampleResponse(
        [SampledSequence("length", "", np.zeros(0, dtype=np.int32), empty)],
        prompt_logprobs_np=empty,
    )
    body = codec.encode_sample_response(response, proto=True)
    decoded = codec.decode_sample_response(body.content, body.content_type)
    assert (None, None) == (decoded.sequences[0].logprobs, decoded.prompt_logprobs)


def test_the_promise_names_the_sequences() -> None:
    sequence = SampledSequence("stop", "", np.array([1], dtype=np.int32))
    for proto in (True, False):
        body = codec.encode_sample_response(SampleResponse([sequence, sequence]), proto=proto)
        decoded = codec.decode_sample_response(body.content, body.content_type, ["a", "b"])
        assert ["a", "b"] == [item.sequence_id for item in decoded.sequences]


def test_numeric_settings_are_written_for_older_servers_too() -> None:
    request = ForwardBackwardRequest("m", [], "custom", 1, {"beta": 0.5, "loss_id": "x"})
    message = pb.ForwardBackwardRequest.FromString(
        codec.encode_forward_backward(request, proto=True).content
    )
    assert {"beta": 0.5} == dict(message.loss_fn_config)
    assert {"beta", "loss_id"} == set(message.loss_fn_config_v2)


def test_old_numeric_settings_are_read_and_new_ones_win() -> None:
    message = pb.ForwardBackwardRequest(model_id="m", loss_fn_config={"a": 1.0, "b": 2.0})
    message.loss_fn_config_v2["b"].number = 3.0
    decoded = codec.decode_forward_backward(message.SerializeToString(), codec.PROTOBUF)
    assert {"a": 1.0, "b": 3.0} == decoded.loss_fn_config
    assert decoded.seq_id is None


def test_json_of_the_older_generation_needs_no_discriminators() -> None:
    content = (
        b'{"forward_backward_input":{"data":[{"loss_fn_inputs":{"weights":{"data":[1.0],'
        b'"dtype":"float32"}},"model_input":{"chunks":[{"tokens":[1]}]}}],"loss_fn":"ppo",'
        b'"loss_fn_config":null},"model_id":"m","seq_id":2}'
    )
    decoded = codec.decode_forward_backward(content, "application/json; charset=utf-8")
    assert ("m", 2, "ppo", {}, False) == (
        decoded.model_id,
        decoded.seq_id,
        decoded.loss_fn,
        decoded.loss_fn_config,
        decoded.forward_only,
    )
    assert ModelInput([EncodedTextChunk([1])]) == decoded.data[0].model_input


def test_nulls_and_missing_keys_of_a_sampling_request_are_defaults() -> None:
    shortest = codec.decode_sample(b'{"prompt":{"chunks":[]}}')
    with_nulls = codec.decode_sample(
        b'{"prompt":{"chunks":[]},"sampling_params":{"seed":null},"num_samples":null,'
        b'"prompt_logprobs":null,"topk_prompt_logprobs":null,"colour":"blue"}'
    )
    assert SampleRequest(ModelInput([])) == shortest == with_nulls


def test_what_is_none_stays_out_of_a_sampling_request() -> None:
    content = codec.encode_sample(SampleRequest(ModelInput.from_ints([5]))).content
    assert {
        "num_samples": 1,
        "prompt": {"chunks": [{"tokens": [5], "type": "encoded_text"}]},
        "sampling_params": {"temperature": 1.0, "top_k": -1, "top_p": 1.0},
        "prompt_logprobs": False,
        "topk_prompt_logprobs": 0,
        "type": "sample",
    } == json.loads(content)

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.wire_values import batches
from tinker_ray.core.operation import ForwardBackward, OptimStep, packed
from tinker_ray.types import AdamParams, Datum, ImageAssetPointerChunk, ModelInput
from tinker_ray.wire import codec
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.packed import PackedData, data_bytes
from tinker_ray.wire.request import ForwardBackwardRequest

DATUM = Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [2, 3], "weights": [0.5, 1.0]})


@settings(max_examples=20, deadline=None)
@given(batches(proto=True), st.sampled_from([4, 5]))
def test_a_packed_batch_is_sent_as_the_batch_itself(
    request: ForwardBackwardRequest, protocol: int
) -> None:
    far = pickle.loads(pickle.dumps(PackedData.of(request.data), protocol))  # noqa: S301
    sent = codec.encode_forward_backward(replace(request, data=far), proto=True)
    itself = codec.encode_forward_backward(request, proto=True)
    assert itself.content_type == sent.content_type
    assert len(itself.content) == len(sent.content)
    read = [pb.ForwardBackwardRequest.FromString(body.content) for body in (itself, sent)]
    assert read[0].SerializeToString(deterministic=True) == read[1].SerializeToString(
        deterministic=True
    )
    assert (len(request.data), data_bytes(request.data)) == (len(far), data_bytes(far))


def test_an_older_service_gets_a_packed_batch_in_json() -> None:
    request = ForwardBackwardRequest("m", [DATUM, DATUM], "cross_entropy", 3)
    far = replace(request, data=PackedData.of(request.data))
    # What was read from protobuf has its keys in any order.
    itself, sent = (
        json.loads(codec.encode_forward_backward(each, proto=False).content)
        for each in (request, far)
    )
    assert itself == sent


def test_the_bytes_of_a_packed_batch_are_not_copied_by_pickle_if_they_need_not_be() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = PackedData.of([Datum(ModelInput.from_ints(np.arange(1000)))])
    in_band = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert len(in_band) < 200
    assert [data.content] == [bytes(buffer) for buffer in buffers]
    assert list(data) == list(pickle.loads(in_band, buffers=buffers))  # noqa: S301


def test_parts_of_a_packed_batch_can_be_read_and_its_values_are_not_shown() -> None:
    data = PackedData.of([DATUM, DATUM])
    assert data[0] == DATUM
    assert list(data[1:]) == [DATUM]
    assert repr(data) == "PackedData(2 datums, 64 bytes)"


def test_what_cannot_be_packed_stays_as_it_is() -> None:
    pointer = ModelInput([ImageAssetPointerChunk("s3://image", "png")])
    batch = ForwardBackward(1, [Datum(pointer)], "cross_entropy")
    step = OptimStep(2, AdamParams())
    assert packed(batch) is batch
    assert packed(step) is step

"""Bulk requests and results to bytes and back, in either of the service's two encodings.

The facade over the JSON and protobuf modules beside it: it knows content types, they know layouts.
Decoding never trusts its input: what does not fit raises ``WireFormatError`` with the field's path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.errors import WireFormatError
from tinker_ray.wire import compression, json_codec, json_sample, proto_codec, proto_sample
from tinker_ray.wire.packed import PackedData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.types import ForwardBackwardOutput, SampleResponse
    from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Body:
    """Encoded bytes and what they are; ``content_encoding`` is ``zstd`` if they are compressed."""

    content: bytes
    content_type: str
    content_encoding: str | None = None


def is_protobuf(content_type: str) -> bool:
    """Tell whether a Content-Type or Accept value names protobuf."""
    return PROTOBUF in content_type.lower()


def compressed(body: Body) -> Body:
    """Compress a body with zstd."""
    return Body(compression.compress(body.content), body.content_type, compression.ZSTD)


def encode_forward_backward(request: ForwardBackwardRequest, *, proto: bool) -> Body:
    """Encode a training batch.

    Raises:
        WireFormatError: A value cannot travel in this encoding (NaN in JSON, image pointers in
            protobuf).
    """
    if proto and isinstance(request.data, PackedData):
        return Body(request.data.encode_in(request), PROTOBUF)
    if proto:
        return Body(proto_codec.encode_forward_backward(request), PROTOBUF)
    return Body(json_codec.encode_forward_backward(request), JSON)


def decode_forward_backward(content: bytes, content_type: str) -> ForwardBackwardRequest:
    """Decode a training batch; the JSON form of ``/forward`` is understood as forward-only.

    Raises:
        WireFormatError: The bytes are not such a request.
    """
    if is_protobuf(content_type):
        return proto_codec.decode_forward_backward(content)
    return json_codec.decode_forward_backward(content)


def encode_forward_backward_output(output: ForwardBackwardOutput, *, proto: bool) -> Body:
    """Encode a training result."""
    if proto:
        return Body(proto_codec.encode_output(output), PROTOBUF)
    return Body(json_codec.encode_output(output), JSON)


def decode_forward_backward_output(content: bytes, content_type: str) -> ForwardBackwardOutput:
    """Decode a training result.

    Raises:
        WireFormatError: The bytes are not such a result.
    """
    if is_protobuf(content_type):
        return proto_codec.decode_output(content)
    return json_codec.decode_output(content)


def encode_sample(request: SampleRequest) -> Body:
    """Encode a sampling request; the service takes it as JSON only.

    Raises:
        WireFormatError: A value cannot travel.
    """
    return Body(json_sample.encode_sample(request), JSON)


def decode_sample(content: bytes) -> SampleRequest:
    """Decode a sampling request.

    Raises:
        WireFormatError: The bytes are not such a request.
    """
    return json_sample.decode_sample(content)


def encode_sample_response(response: SampleResponse, *, proto: bool) -> Body:
    """Encode what was sampled."""
    if proto:
        return Body(proto_sample.encode_sample_response(response), PROTOBUF)
    return Body(json_sample.encode_sample_response(response), JSON)


def decode_sample_response(
    content: bytes, content_type: str, sequence_ids: Sequence[str] = ()
) -> SampleResponse:
    """Decode what was sampled and stamp each sequence with the id that its promise gave it.

    Raises:
        WireFormatError: The bytes are not such a response, or the number of ids does not match.
    """
    if is_protobuf(content_type):
        response = proto_sample.decode_sample_response(content, sequence_ids)
    else:
        response = json_sample.decode_sample_response(content, sequence_ids)
    if sequence_ids and len(sequence_ids) != len(response.sequences):
        message = f"{len(response.sequences)} sequences for {len(sequence_ids)} sequence ids"
        raise WireFormatError(message, field="sequences")
    return response

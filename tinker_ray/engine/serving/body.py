"""The body of a request as plain bytes, and the place in a model's order that a bad one had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.errors import WireFormatError
from tinker_ray.wire import codec, compression
from tinker_ray.wire import tinker_public_pb2 as pb

if TYPE_CHECKING:
    from fastapi import Request

MAX_BODY_BYTES = 512 << 20


async def plain_body(request: Request) -> bytes:
    """Read a body, decompressed if it was compressed.

    Raises:
        RequestRejected: It is in an encoding that the engine does not read, or too large.
    """
    content = await request.body()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return content
    if encoding != "zstd":
        raise RequestRejected(
            f"cannot read {encoding!r}", field="Content-Encoding", status_code=415
        )
    return _decompress(content)


def _decompress(content: bytes) -> bytes:
    try:
        return compression.decompress(content, MAX_BODY_BYTES)
    except compression.TooLargeError as error:
        raise RequestRejected(error.message, field="body", status_code=413) from error
    except WireFormatError as error:
        raise RequestRejected(error.message, field="body") from error


def turn_of(content: bytes, content_type: str) -> tuple[str, int] | None:
    """Return the model and the ``seq_id`` of a training request that was refused, if they show."""
    if codec.is_protobuf(content_type):
        message = pb.ForwardBackwardRequest()
        try:
            message.ParseFromString(content)
        except DecodeError:
            return None
        return (message.model_id, message.seq_id) if message.seq_id else None
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    model_id, seq_id = fields.get("model_id"), fields.get("seq_id")
    if isinstance(model_id, str) and type(seq_id) is int and seq_id > 0:
        return model_id, seq_id
    return None

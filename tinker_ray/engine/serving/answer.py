"""What goes back over HTTP: JSON, promises, outcomes and refusals."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from fastapi import Response

from tinker_ray.engine.serving import generation
from tinker_ray.engine.serving.gate import CALLER, PREFIX
from tinker_ray.engine.serving.operation import failure
from tinker_ray.errors import WireFormatError
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from pydantic import BaseModel

    from tinker_ray.engine.access.caller import Caller
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.downloads import Link
    from tinker_ray.engine.store.row import Outcome

_LARGE_BYTES = 256 << 10


def host_of(request: Request) -> Host:
    """Return the engine that a request came to."""
    return cast("Host", request.app.state.host)


def caller_of(request: Request) -> Caller:
    """Return who sent a request."""
    return cast("Caller", request.scope[CALLER])


def url_of(request: Request, link: Link) -> str:
    """Return a link as a URL of the address that the client used."""
    url = request.url
    return f"{url.scheme}://{url.netloc}{request.scope[PREFIX]}/api/v1/downloads/{link.token}"


def json_answer(
    value: Mapping[str, Any], status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a JSON object."""
    content = json.dumps(value, separators=(",", ":")).encode()
    given = None if headers is None else dict(headers)
    return Response(content, status_code=status_code, headers=given, media_type=codec.JSON)


def record_answer(request: Request, record: BaseModel) -> Response:
    """Answer with a public value, as far as the generation of the service says it."""
    wire = host_of(request).settings.wire
    if wire == "json":
        return json_answer(generation.answer_keys(wire, record.model_dump(mode="json")))
    return Response(record.model_dump_json(), media_type=codec.JSON)


def promise_answer(request_id: str, model_id: str) -> Response:
    """Answer with the promise of a training operation."""
    return json_answer({"request_id": request_id, "model_id": model_id})


async def outcome_answer(request: Request, outcome: Outcome) -> Response:
    """Answer with what a promise came to, in the encoding that the client accepts.

    Raises:
        RequestRejected: It accepts none that the engine sends.
    """
    if outcome.form in {"json", "error"}:
        return Response(outcome.body, media_type=codec.JSON)
    accept = request.headers.get("accept", codec.JSON)
    if generation.result_encoding(host_of(request).settings.wire, accept) == codec.PROTOBUF:
        return Response(outcome.body, media_type=codec.PROTOBUF)
    if len(outcome.body) > _LARGE_BYTES:
        content = await asyncio.to_thread(_as_json, outcome)
    else:
        content = _as_json(outcome)
    return Response(content, media_type=codec.JSON)


def _as_json(outcome: Outcome) -> bytes:
    try:
        if outcome.form == "output":
            output = codec.decode_forward_backward_output(outcome.body, codec.PROTOBUF)
            return codec.encode_forward_backward_output(output, proto=False).content
        response = codec.decode_sample_response(outcome.body, codec.PROTOBUF)
        return codec.encode_sample_response(response, proto=False).content
    except WireFormatError as error:  # not finite, which only protobuf can carry
        return failure(f"the result cannot be told in JSON: {error}", "server").body

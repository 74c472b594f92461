"""Typed calls over a transport: JSON in, a checked value out, or a promise to be polled.

Knows nothing of what the calls mean. One link belongs to one event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tinker_ray.errors import APIResponseValidationError, WireFormatError
from tinker_ray.transport.clock import Clock, MonotonicClock
from tinker_ray.transport.message import Request
from tinker_ray.transport.retry import send
from tinker_ray.wire import json_value
from tinker_ray.wire.codec import JSON, Body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.transport.message import Response, Transport
    from tinker_ray.wire.endpoint import Endpoint

R = TypeVar("R", bound=BaseModel)


class Promise(BaseModel):
    """What the service answers to a long operation: where to ask for its result."""

    request_id: str
    model_id: str | None = None
    sample_sequence_ids: list[str] | None = None
    roundtrip_s: float = 0.0


@dataclass
class Link:
    """A transport, and the clock that its retries run on."""

    transport: Transport
    clock: Clock = field(default_factory=MonotonicClock)

    async def call(
        self,
        endpoint: Endpoint,
        answer: type[R],
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        path: Mapping[str, str] | None = None,
    ) -> R:
        """Send a JSON request and check the answer against its schema.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
            APIResponseValidationError: The answer does not fit ``answer``.
        """
        encoded = None if endpoint.method == "GET" else json_body(endpoint, body)
        response = await self.send(endpoint, encoded, query=query, path=path)
        return validate(response, answer)

    async def send(
        self,
        endpoint: Endpoint,
        body: Body | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        path: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request with the retries of its endpoint.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        request = Request(
            endpoint,
            endpoint.url_path(**(path or {})),
            content=b"" if body is None else body.content,
            content_type=JSON if body is None else body.content_type,
            query=query or {},
            headers=headers or {},
        )
        return await send(self.transport, request, self.clock)

    async def submit(
        self, endpoint: Endpoint, body: Body, *, headers: Mapping[str, str] | None = None
    ) -> Promise:
        """Send a request for a long operation and return its promise.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
            APIResponseValidationError: The answer is not a promise.
        """
        started = self.clock.now()
        response = await self.send(endpoint, body, headers=headers)
        promise = validate(response, Promise)
        return promise.model_copy(update={"roundtrip_s": self.clock.now() - started})

    async def aclose(self) -> None:
        """Close the transport; idempotent."""
        await self.transport.aclose()


def json_body(endpoint: Endpoint, body: Mapping[str, Any] | None) -> Body:
    """Encode a JSON body with the endpoint's discriminator, leaving out what is None.

    Raises:
        WireFormatError: There is a NaN or an infinity in it.
    """
    fields = {key: value for key, value in (body or {}).items() if value is not None}
    if endpoint.type_name is not None:
        fields["type"] = endpoint.type_name
    return Body(json_value.dumps(fields, endpoint.path), JSON)


def validate(response: Response, answer: type[R]) -> R:
    """Check a 2xx answer against a schema.

    Raises:
        APIResponseValidationError: It does not fit.
    """
    try:
        return answer.model_validate(json_value.loads(response.content))
    except (ValidationError, WireFormatError) as error:
        message = f"the service's answer is not a {answer.__name__}: {error}"
        excerpt = response.content[:2000].decode(errors="replace")
        raise APIResponseValidationError(
            message, status_code=response.status, body=excerpt
        ) from error

"""Typed calls over a transport: JSON in, a checked value out, or a promise to be polled.

Knows nothing of what the calls mean. One link belongs to one event loop, and holds what all calls
of a process to one service share: what that service wants, how long to be patient, and how many
bytes may be under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from tinker_ray.core.byte_gate import ByteGate
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.sdk_method import method_headers
from tinker_ray.errors import APIResponseValidationError, WireFormatError
from tinker_ray.limits.budget import ByteBudget
from tinker_ray.transport.clock import Clock, MonotonicClock
from tinker_ray.transport.message import Request
from tinker_ray.transport.retry import Patience, RoundFailure, send
from tinker_ray.wire import json_value
from tinker_ray.wire.codec import JSON, Body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.message import Response, Transport
    from tinker_ray.wire.endpoint import Endpoint

R = TypeVar("R", bound=BaseModel)
EventSeverity: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class EventSink(Protocol):
    """Takes what the service's telemetry is to hear of."""

    def log(
        self,
        event_name: str,
        event_data: dict[str, object] | None = None,
        severity: EventSeverity = "INFO",
    ) -> object:
        """Take in an event; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class Promise:
    """What the service answers to a long operation: where to ask for its result.

    A plain value read by hand, because there is one for every sample.
    """

    request_id: str
    model_id: str | None = None
    sample_sequence_ids: Sequence[str] | None = None
    roundtrip_s: float = 0.0

    @classmethod
    def read(cls, response: Response, roundtrip_s: float) -> Promise:
        """Read a 2xx answer.

        Raises:
            APIResponseValidationError: It is no promise.
        """
        try:
            body = json_value.loads(response.content)
            request_id = json_value.required(body, "request_id", str)
            model_id = json_value.optional(body, "model_id", str)
            ids = json_value.optional(body, "sample_sequence_ids", list)
            for number, item in enumerate(ids or ()):
                json_value.typed(item, str, f"sample_sequence_ids[{number}]")
        except WireFormatError as error:
            raise _misfit(response, "Promise", error) from error
        return cls(request_id, model_id, ids, roundtrip_s)


@dataclass
class Link:
    """A transport, the clock that its retries run on, and what its calls share.

    Attributes:
        flags: What the service can do and wants; :meth:`adopt` changes them.
        credentials: What the transport authenticates by, to ask who this is; None in tests.
        patience: What the repetitions of all requests share.
        events: Takes what the service's telemetry is to hear of; None keeps it from the service.
        responses: The budget for large results under way.
        batches: The budget for training batches under way.
    """

    transport: Transport
    clock: Clock = field(default_factory=MonotonicClock)
    flags: ServerFlags = field(default_factory=ServerFlags)
    credentials: Credentials | None = None
    patience: Patience = field(default_factory=Patience)
    events: EventSink | None = None
    responses: ByteGate = field(init=False)
    batches: ByteGate = field(init=False)

    def __post_init__(self) -> None:
        """Set up what the flags say, and listen to what fails."""
        self.adopt(self.flags)
        self.patience.on_round_failed = self._report_round

    def adopt(self, flags: ServerFlags) -> None:
        """Do as the service wants from now on. Before the first call that the budgets are for."""
        self.flags = flags
        self.patience.billing.longest_s = flags.billing_pause_s
        self.responses = ByteGate(ByteBudget(flags.response_bytes))
        self.batches = ByteGate(ByteBudget(flags.fwdbwd_bytes))

    async def call(  # noqa: PLR0913 - the parts of a request
        self,
        endpoint: Endpoint,
        answer: type[R],
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        path: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """Send a JSON request and check the answer against its schema.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
            APIResponseValidationError: The answer does not fit ``answer``.
        """
        encoded = None if endpoint.method == "GET" else json_body(endpoint, body)
        response = await self.send(endpoint, encoded, query=query, path=path, headers=headers)
        return validate(response, answer)

    async def send(  # noqa: PLR0913 - the parts of a request
        self,
        endpoint: Endpoint,
        body: Body | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        path: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        before_again: Callable[[], Awaitable[None]] | None = None,
    ) -> Response:
        """Send a request with the retries of its endpoint, and its timeout unless one is given.

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
            headers=_headers(body, headers),
            timeout_s=timeout_s,
        )
        return await send(self.transport, request, self.clock, self.patience, before_again)

    async def submit(
        self,
        endpoint: Endpoint,
        body: Body,
        *,
        headers: Mapping[str, str] | None = None,
        before_again: Callable[[], Awaitable[None]] | None = None,
    ) -> Promise:
        """Send a request for a long operation and return its promise.

        Args:
            endpoint: What to ask for.
            body: The request.
            headers: Besides those of every request.
            before_again: Awaited before each repetition.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
            APIResponseValidationError: The answer is not a promise.
        """
        started = self.clock.now()
        response = await self.send(endpoint, body, headers=headers, before_again=before_again)
        return Promise.read(response, self.clock.now() - started)

    def report(self, name: str, data: dict[str, object], severity: EventSeverity) -> None:
        """Let the service's telemetry hear of an event, if it is wanted there."""
        if self.events is not None:
            self.events.log(name, data, severity)

    async def aclose(self) -> None:
        """Close the transport; idempotent."""
        await self.transport.aclose()

    def _report_round(self, failure: RoundFailure) -> None:
        code = getattr(failure.error, "status_code", None)
        self.report(
            "InternalClientHolder.execute_with_retries.exception",
            {
                "func": failure.endpoint.path,
                "exception": str(failure.error),
                "exception_type": type(failure.error).__name__,
                "status_code": code,
                "is_retryable": failure.repeated,
                "attempt_count": failure.round,
                "elapsed_time": failure.elapsed_s,
            },
            "WARNING" if failure.repeated else "ERROR",
        )


def _headers(body: Body | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    merged = {**method_headers(), **(headers or {})}
    if body is not None and body.content_encoding is not None:
        merged["Content-Encoding"] = body.content_encoding
    return merged


def json_body(endpoint: Endpoint, body: Mapping[str, Any] | None) -> Body:
    """Encode a JSON body with the endpoint's discriminator, leaving out what is None.

    Raises:
        WireFormatError: There is a NaN or an infinity in it.
    """
    fields = {key: value for key, value in (body or {}).items() if value is not None}
    if endpoint.type_name is not None:
        fields["type"] = endpoint.type_name
    return Body(json_value.dumps(fields, endpoint.path), JSON)


def plain_body(endpoint: Endpoint, body: Mapping[str, Any]) -> Body:
    """Encode a JSON body as it is, nulls included: some calls tell null from absence.

    Raises:
        WireFormatError: There is a NaN or an infinity in it.
    """
    return Body(json_value.dumps(dict(body), endpoint.path), JSON)


def validate(response: Response, answer: type[R]) -> R:
    """Check a 2xx answer against a schema.

    Raises:
        APIResponseValidationError: It does not fit.
    """
    try:
        return answer.model_validate(json_value.loads(response.content))
    except (ValidationError, WireFormatError) as error:
        raise _misfit(response, answer.__name__, error) from error


def _misfit(response: Response, name: str, error: Exception) -> APIResponseValidationError:
    message = f"the service's answer is not a {name}: {error}"
    excerpt = response.content[:2000].decode(errors="replace")
    return APIResponseValidationError(message, status_code=response.status, body=excerpt)

"""Waiting for a promise: the second of the two retry loops of the project.

The service holds each poll until there is a result or some seconds have passed, so that a pending
answer is followed by the next poll at once. Connection errors and 429 are waited out, ``min(2ᶜ,
30)`` s, for as long as it takes: how long to wait at all is the caller's decision (cancel the
task). A 5xx is polled again at once the first time, then with the same growing pauses. A large
result announces its size first, and is fetched when the budget for such results has room.

What the service refuses to answer is raised as the error of its status that is a ``ValueError``
too: the SDKs of the service raise plain ``ValueError``s here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from tinker_ray.core.sdk_method import method_headers
from tinker_ray.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    RequestErrorCategory,
    RequestFailedError,
    RetryableError,
    TinkerError,
    WireFormatError,
)
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.trace import recording
from tinker_ray.transport.billing import ASK_AGAIN_S
from tinker_ray.transport.message import Request
from tinker_ray.wire import json_value, status
from tinker_ray.wire.codec import JSON, PROTOBUF, is_protobuf
from tinker_ray.wire.endpoint import RETRIEVE_FUTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.core.link import Link, Promise
    from tinker_ray.core.queue_log import QueueLog
    from tinker_ray.transport.message import Response

T = TypeVar("T")

_MAX_PAUSE_S = 30.0
_BAD_REQUEST_RETRIES = 3


@dataclass(frozen=True, slots=True)
class ResultKind(Generic[T]):
    """What a promise will turn into.

    Attributes:
        name: As the service names it in ``X-Tinker-Request-Type``.
        decode: Turns the answer and its promise into the result.
        protobuf: Whether to ask for protobuf.
    """

    name: str
    decode: Callable[[Response, Promise], T]
    protobuf: bool = False


async def retrieve(
    link: Link,
    promise: Promise,
    kind: ResultKind[T],
    log: QueueLog | None = None,
    *,
    size_bytes: int = 0,
) -> T:
    """Poll until the promise is kept or broken.

    Args:
        link: The service.
        promise: What to wait for.
        kind: What it will turn into.
        log: Hears why it takes long.
        size_bytes: The size of a result that is known to be there and large, else 0.

    Raises:
        RequestFailedError: The operation failed.
        RetryableError: The service lost the promise.
        APIStatusError: The service refuses to answer for this promise; a ``ValueError`` too.
        APIResponseValidationError: The result is not what the contract says; a ``ValueError`` too.
        WireFormatError: The same, for results that are bulk data.
    """
    poll = _Poll(link, promise, kind, log)
    try:
        if size_bytes > 0:
            await poll.make_room(size_bytes)
        while True:
            response = await poll.next_answer()
            if response is not None:
                return kind.decode(response, promise)
    except (APIStatusError, APIResponseValidationError) as error:
        poll.report("api_status_error", error)
        raise as_value_error(error) from error
    except RequestFailedError as error:
        poll.report("application_error", error, user=error.category is RequestErrorCategory.User)
        raise
    except WireFormatError as error:
        poll.report("validation_error", error)
        raise
    finally:
        poll.close()


class _Poll:
    """The polls for one promise, and what their outcomes change."""

    def __init__(
        self, link: Link, promise: Promise, kind: ResultKind[Any], log: QueueLog | None
    ) -> None:
        self._link = link
        self._promise = promise
        self._kind = kind
        self._log = log
        self._iteration = -1
        self._failures = 0
        self._bad_requests = 0
        self._may_announce = link.flags.protobuf
        self._held_bytes = 0

    async def make_room(self, size_bytes: int) -> None:
        """Wait until a result of that size may be fetched."""
        self._may_announce = False
        await self._link.responses.acquire(size_bytes)
        self._held_bytes = size_bytes

    def close(self) -> None:
        """Give back what was held for the result."""
        held_bytes, self._held_bytes = self._held_bytes, 0
        if held_bytes:
            self._link.responses.release(held_bytes)

    async def next_answer(self) -> Response | None:
        """Poll once; None if the result is not there yet.

        Raises:
            RequestFailedError: The operation failed.
            RetryableError: The service lost the promise.
            APIStatusError: The service refuses to answer for this promise.
            WireFormatError: The answer breaks the contract.
        """
        self._iteration += 1
        try:
            response = await self._link.transport.attempt(*self._request())
        except APIConnectionError as error:
            self.report("connection_error", error)
            await self._pause()
            return None
        except APIStatusError as error:  # of the exchange of a credential
            if not status.is_retryable(error.status_code):
                raise
            await self._pause()
            return None
        if status.is_success(response.status):
            self._failures = 0
            return await self._result(response)
        await self._go_on_after(response)
        return None

    def report(self, event: str, error: TinkerError, *, user: bool = False) -> None:
        """Tell the service's telemetry, if it is wanted there."""
        code = getattr(error, "status_code", None)
        self._link.report(
            f"APIFuture.result_async.{event}",
            {
                "request_id": self._promise.request_id,
                "request_type": self._kind.name,
                "status_code": code,
                "exception": str(error),
                "exception_type": type(error).__name__,
                "iteration": self._iteration,
                "is_user_error": user,
            },
            "WARNING" if user or isinstance(error, APIConnectionError) else "ERROR",
        )

    def _request(self) -> tuple[Request, dict[str, str]]:
        headers = {
            **method_headers(),
            "X-Tinker-Request-Iteration": str(self._iteration),
            "X-Tinker-Request-Type": self._kind.name,
        }
        if self._iteration == 0:
            headers["X-Tinker-Create-Promise-Roundtrip-Time"] = f"{self._promise.roundtrip_s:.6f}"
        if recording():
            headers |= inject()
        fields: dict[str, Any] = {"request_id": self._promise.request_id}
        if self._link.flags.protobuf:  # an older service knows no large results
            fields["allow_metadata_only"] = self._may_announce
        request = Request(
            RETRIEVE_FUTURE,
            RETRIEVE_FUTURE.url_path(),
            content=json_value.dumps(fields),
            accept=PROTOBUF if self._kind.protobuf else JSON,
        )
        return request, headers

    async def _result(self, response: Response) -> Response | None:
        if is_protobuf(response.content_type):
            self._on_state("active")
            return response
        body = json_value.loads(response.content)
        if body.get("type") == "try_again":
            self._on_pending(body)
            return None
        if body.get("status") == "complete_metadata" and self._link.flags.protobuf:
            await self._on_announced(body)
            return None
        self._on_state("active")
        if body.get("error") is not None:
            raise RequestFailedError(
                str(body["error"]),
                request_id=self._promise.request_id,
                category=RequestErrorCategory.of(body.get("category")),
            )
        return response

    async def _on_announced(self, body: dict[str, Any]) -> None:
        if not self._may_announce:
            message = "the size of a result was announced twice"
            raise WireFormatError(message, field="status")
        size_bytes = body.get("response_payload_size") or 0
        if not isinstance(size_bytes, int) or size_bytes < 0:
            raise WireFormatError("not a size", field="response_payload_size")
        await self.make_room(size_bytes)

    async def _go_on_after(self, response: Response) -> None:
        """Wait as a refusal demands.

        Raises:
            RetryableError: It says that the promise is lost.
            APIStatusError: It stands.
        """
        if response.status == status.REQUEST_TIMEOUT:
            self._failures = self._bad_requests = 0
            self._on_pending(_body_of(response))
            return
        if response.status >= status.SERVER_ERROR:
            await self._pause(at_once_first=True)
            return
        if response.status == status.TOO_MANY_REQUESTS:
            await self._pause()
            return
        if response.status == status.BAD_REQUEST and self._bad_requests < _BAD_REQUEST_RETRIES:
            self._bad_requests += 1
            return
        error = status.judge(response.status, response.headers, response.content).error
        error.request_id = self._promise.request_id
        if self._link.patience.waits_for_billing(error, self._link.clock.now()):
            await self._link.clock.sleep(ASK_AGAIN_S)
            return
        raise _lost(self._promise, error) if response.status == status.GONE else error

    async def _pause(self, *, at_once_first: bool = False) -> None:
        exponent = self._failures - (1 if at_once_first else 0)
        self._failures += 1
        await self._link.clock.sleep(0.0 if exponent < 0 else min(2.0**exponent, _MAX_PAUSE_S))

    def _on_pending(self, body: dict[str, Any]) -> None:
        state, reason = body.get("queue_state"), body.get("queue_state_reason")
        if state or reason:
            self._on_state(str(state or "unknown"), None if reason is None else str(reason))

    def _on_state(self, state: str, reason: str | None = None) -> None:
        if self._log is not None:
            self._log.on_state(state, reason)


def _body_of(response: Response) -> dict[str, Any]:
    try:
        return json_value.loads(response.content)
    except WireFormatError:
        return {}


def _lost(promise: Promise, error: APIStatusError) -> RetryableError:
    message = f"the service lost the promise {promise.request_id}: submit the operation again"
    lost = RetryableError(message)
    lost.__cause__ = error
    return lost


E = TypeVar("E", bound=APIError)


def as_value_error(error: E) -> E:
    """Return an error like the given one that is a ``ValueError`` too.

    It keeps its class, status and attributes, so that ``except BadRequestError`` and ``except
    ValueError`` both catch it; it pickles.
    """
    return _remake(type(error), error.args, dict(error.__dict__), None)


_VALUE_ERRORS: dict[type[APIError], type[APIError]] = {}
"""The classes that were derived so far; the same for all of a process, so that ``type`` is."""


def _value_error_class(cls: type[APIError]) -> type[APIError]:
    """Derive from an error class and from ``ValueError``, under the same name."""
    if cls not in _VALUE_ERRORS:
        members = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": _reduce}
        _VALUE_ERRORS[cls] = type(cls.__name__, (cls, ValueError), members)
    return _VALUE_ERRORS[cls]


def _reduce(error: APIError) -> tuple[Any, ...]:
    cause = error.__cause__ if isinstance(error.__cause__, TinkerError) else None
    return _remake, (type(error).__bases__[0], error.args, dict(error.__dict__), cause)


def _remake(
    cls: type[E], args: tuple[Any, ...], state: dict[str, Any], cause: TinkerError | None
) -> E:
    made = cast("type[E]", _value_error_class(cls))
    error = made.__new__(made, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error

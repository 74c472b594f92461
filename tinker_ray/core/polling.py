"""Waiting for a promise: the second of the two retry loops of the project.

The service holds each poll until there is a result or some seconds have passed, so that a pending
answer is followed by the next poll at once. Connection errors and 429 are waited out, ``min(2ᶜ,
30)`` s, for as long as it takes: how long to wait at all is the caller's decision (cancel the
task). A 5xx is polled again at once the first time, then with the same growing pauses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tinker_ray.errors import (
    APIConnectionError,
    RequestErrorCategory,
    RequestFailedError,
    RetryableError,
)
from tinker_ray.telemetry.carrier import inject
from tinker_ray.telemetry.trace import recording
from tinker_ray.transport.message import Request
from tinker_ray.wire import json_value, status
from tinker_ray.wire.codec import JSON, PROTOBUF, is_protobuf
from tinker_ray.wire.endpoint import RETRIEVE_FUTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.core.link import Link, Promise
    from tinker_ray.transport.message import Response

T = TypeVar("T")

_MAX_PAUSE_S = 30.0
_BAD_REQUEST = 400
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


class _Pauses:
    """How long to pause before the next poll; grows while polls fail in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next_s(self, *, at_once_first: bool = False) -> float:
        exponent = self._failures - (1 if at_once_first else 0)
        self._failures += 1
        return 0.0 if exponent < 0 else min(2.0**exponent, _MAX_PAUSE_S)


async def retrieve(link: Link, promise: Promise, kind: ResultKind[T]) -> T:
    """Poll until the promise is kept or broken.

    Raises:
        RequestFailedError: The operation failed.
        RetryableError: The service lost the promise.
        APIStatusError: The service refuses to answer for this promise.
        WireFormatError: The result is not what the contract says.
    """
    pauses = _Pauses()
    bad_requests = 0
    iteration = -1
    while True:
        iteration += 1
        try:
            response = await link.transport.attempt(*_poll(promise, kind, iteration))
        except APIConnectionError:
            await link.clock.sleep(pauses.next_s())
            continue
        if status.is_success(response.status):
            pauses.reset()
            if _is_pending(response, promise):
                continue
            return kind.decode(response, promise)
        if response.status == status.REQUEST_TIMEOUT:
            pauses.reset()
            bad_requests = 0
        elif response.status >= status.SERVER_ERROR:
            await link.clock.sleep(pauses.next_s(at_once_first=True))
        elif response.status == status.TOO_MANY_REQUESTS:
            await link.clock.sleep(pauses.next_s())
        elif response.status == _BAD_REQUEST and bad_requests < _BAD_REQUEST_RETRIES:
            bad_requests += 1
        else:
            raise _refusal(response, promise)


def _poll(
    promise: Promise, kind: ResultKind[Any], iteration: int
) -> tuple[Request, dict[str, str]]:
    headers = {
        "X-Tinker-Request-Iteration": str(iteration),
        "X-Tinker-Request-Type": kind.name,
    }
    if iteration == 0:
        headers["X-Tinker-Create-Promise-Roundtrip-Time"] = f"{promise.roundtrip_s:.6f}"
    if recording():
        headers |= inject()
    content = json_value.dumps({"request_id": promise.request_id, "allow_metadata_only": False})
    request = Request(
        RETRIEVE_FUTURE,
        RETRIEVE_FUTURE.url_path(),
        content=content,
        accept=PROTOBUF if kind.protobuf else JSON,
    )
    return request, headers


def _is_pending(response: Response, promise: Promise) -> bool:
    """Tell a pending answer from a result.

    Raises:
        RequestFailedError: The answer says that the operation failed.
    """
    if is_protobuf(response.content_type):
        return False
    body = json_value.loads(response.content)
    if body.get("type") == "try_again":
        return True
    if body.get("error") is not None:
        raise RequestFailedError(
            str(body["error"]),
            request_id=promise.request_id,
            category=RequestErrorCategory.of(body.get("category")),
        )
    return False


def _refusal(response: Response, promise: Promise) -> Exception:
    error = status.judge(response.status, response.headers, response.content).error
    error.request_id = promise.request_id
    if response.status == status.GONE:
        message = f"the service lost the promise {promise.request_id}: submit the operation again"
        lost = RetryableError(message)
        lost.__cause__ = error
        return lost
    return error

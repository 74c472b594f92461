"""Every exception that tinker-ray raises, as plain values that survive pickling.

The upper part of the tree has upstream's names and ``isinstance`` relations, the rest is ours::

    Exception
    └─ TinkerError
       ├─ APIError
       │  ├─ APIResponseValidationError     a 2xx body that does not fit its schema
       │  ├─ APIStatusError                 a status that no retry could mend
       │  │  ├─ BadRequestError 400 · AuthenticationError 401 · BillingError 402
       │  │  ├─ PermissionDeniedError 403 · NotFoundError 404 · ConflictError 409
       │  │  └─ UnprocessableEntityError 422 · RateLimitError 429 · InternalServerError 5xx
       │  └─ APIConnectionError             no response at all
       │     └─ APITimeoutError
       ├─ RequestFailedError                the service accepted the operation, then it failed
       ├─ ConfigurationError                a setting that cannot work, and what to change
       ├─ ActorLostError                    an actor died and its work cannot be done again
       ├─ StaleHandleError                  a handle to something that was closed or replaced
       ├─ BudgetExceededError               a run used up the budget that its user gave it
       ├─ EngineError                       the embedded engine refused or failed an operation
       │  └─ EngineStartError               the embedded engine did not come up
       ├─ WireFormatError                   bytes that break the contract; a ValueError too
       └─ RetryableError                    a lost promise: try the whole operation again

No error holds a response, a request or a header: what crosses a process border is text and numbers.
"""

from __future__ import annotations

from typing import Any, Literal

RequestErrorCategory = Literal["unknown", "server", "user"]


def _rebuild(
    cls: type[TinkerError], args: tuple[Any, ...], state: dict[str, Any], cause: TinkerError | None
) -> TinkerError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


class TinkerError(Exception):
    """Root of the tree; pickles with its attributes and with a ``TinkerError`` cause."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild without calling ``__init__``, so that keyword-only arguments survive."""
        cause = self.__cause__ if isinstance(self.__cause__, TinkerError) else None
        return _rebuild, (type(self), self.args, dict(self.__dict__), cause)


class APIError(TinkerError):
    """A request to the service that did not succeed.

    Attributes:
        message: What went wrong, for people.
        body: The parsed JSON body of the answer or its text; None if there was no answer.
        request_id: The promise concerned, where there is one.
    """

    def __init__(self, message: str, *, body: object = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.body = body
        self.request_id = request_id


class APIStatusError(APIError):
    """The service answered with a failure status.

    Attributes:
        status_code: The HTTP status.
        retry_after_s: Seconds that the service asked to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        body: object = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, body=body, request_id=request_id)
        self.status_code = status_code
        self.retry_after_s = retry_after_s


class APIResponseValidationError(APIError):
    """A 2xx answer whose body does not fit the schema of the call."""

    def __init__(self, message: str, *, status_code: int = 200, body: object = None) -> None:
        super().__init__(message, body=body)
        self.status_code = status_code


class BadRequestError(APIStatusError):
    """400."""


class AuthenticationError(APIStatusError):
    """401."""


class BillingError(APIStatusError):
    """402."""


class PermissionDeniedError(APIStatusError):
    """403."""


class NotFoundError(APIStatusError):
    """404."""


class ConflictError(APIStatusError):
    """409."""


class UnprocessableEntityError(APIStatusError):
    """422."""


class RateLimitError(APIStatusError):
    """429."""


class InternalServerError(APIStatusError):
    """500 and above."""


class APIConnectionError(APIError):
    """No response: the connection could not be made, or broke."""

    def __init__(
        self, message: str = "Connection error.", *, request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)


class APITimeoutError(APIConnectionError):
    """No response within the timeout of the call."""

    def __init__(
        self, message: str = "Request timed out.", *, request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)


class RequestFailedError(TinkerError):
    """An operation that the service accepted and that then failed.

    Attributes:
        message: The service's own words.
        request_id: The promise that failed.
        category: ``user`` (the request was at fault), ``server`` or ``unknown``.
    """

    def __init__(
        self, message: str, *, request_id: str, category: RequestErrorCategory = "unknown"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.category = category


class ConfigurationError(TinkerError):
    """A setting or an argument that cannot work; the message names the value and the fix."""


class ActorLostError(TinkerError):
    """An actor died and its work could not be done again.

    Attributes:
        actor: The name of the lost actor.
    """

    def __init__(self, message: str, *, actor: str = "") -> None:
        super().__init__(message)
        self.actor = actor


class StaleHandleError(TinkerError):
    """A handle or client whose owner was closed or replaced."""


class BudgetExceededError(TinkerError):
    """A run reached the budget that its user set."""


class EngineError(TinkerError):
    """The embedded engine refused or failed an operation.

    Attributes:
        category: ``user`` if the request was at fault, else ``server``.
    """

    def __init__(self, message: str, *, category: Literal["user", "server"] = "server") -> None:
        super().__init__(message)
        self.message = message
        self.category = category


class EngineStartError(EngineError):
    """The embedded engine could not be started; the message ends with its last output."""


class WireFormatError(TinkerError, ValueError):
    """Bytes, or a value to be sent, that the wire contract does not allow.

    Also a ``ValueError``, which is what upstream raises in these places.

    Attributes:
        field: The path of what is wrong, such as ``data[3].model_input.chunks[0].tokens``.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field


class RetryableError(TinkerError):
    """The service lost a promise: a fresh attempt of the whole operation is in order.

    Upstream calls it ``RetryableException`` and keeps it out of the ``TinkerError`` tree; here it
    is part of the tree so that one ``except TinkerError`` catches all.
    """


STATUS_ERRORS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: BillingError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
"""The class raised for a status; other 4xx give APIStatusError, 5xx InternalServerError."""

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
       ├─ StaleHandleError                  to something closed or replaced; a RuntimeError too
       ├─ PoisonedClientError               an earlier custom loss failed; a RuntimeError too
       ├─ ModelLostError                    the service lost a model, and it cannot be restored
       ├─ BudgetExceededError               a run used up the budget that its user gave it
       ├─ EngineError                       the embedded engine refused or failed an operation
       │  └─ EngineStartError               the embedded engine did not come up
       ├─ WireFormatError                   bytes that break the contract; a ValueError too
       ├─ UnfulfilledError                  an answer without what was asked; a RuntimeError too
       └─ RetryableError                    a lost promise: try the whole operation again

    FutureWarning
    └─ ExperimentalWarning                  a call that may change in any release

No error holds a response, a request or a header: what crosses a process border is text and numbers.
Upstream's constructors take such objects; ours accept them and keep what is plain of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal


class RequestErrorCategory(StrEnum):
    """Whose fault it is that an operation failed."""

    Unknown = "unknown"
    Server = "server"
    User = "user"

    @classmethod
    def of(cls, value: object) -> RequestErrorCategory:
        """Read the service's word; one that is not known here is ``Unknown``."""
        return next((category for category in cls if category == value), cls.Unknown)


class ExperimentalWarning(FutureWarning):
    """A call that may change or go in any release was used."""


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

    def __init__(
        self,
        message: str,
        request: object = None,  # noqa: ARG002 - upstream's, which is not kept
        *,
        body: object = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.body = body
        self.request_id = request_id

    @property
    def request(self) -> Any:  # noqa: ANN401 - there is none
        """No request is kept.

        Raises:
            AttributeError: Always, so that ``hasattr`` and ``getattr`` with a default tell.
        """
        message = f"{type(self).__name__} keeps no request: it may hold the key, and cannot pickle"
        raise AttributeError(message)

    @property
    def response(self) -> Any:  # noqa: ANN401 - there is none
        """No response is kept: read ``status_code`` and ``body``.

        Raises:
            AttributeError: Always, so that ``hasattr`` and ``getattr`` with a default tell.
        """
        message = f"{type(self).__name__} keeps no response: read .status_code and .body"
        raise AttributeError(message)


class APIStatusError(APIError):
    """The service answered with a failure status.

    Attributes:
        status_code: The HTTP status.
        retry_after_s: Seconds that the service asked to wait, if it did.
    """

    default_status: ClassVar[int] = 0

    def __init__(  # noqa: PLR0913 - upstream's arguments and ours
        self,
        message: str,
        response: object = None,
        body: object = None,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Take a status, or a response that has one.

        Args:
            message: What went wrong, for people.
            response: Anything with a ``status_code``, which alone is kept.
            body: The parsed JSON body of the answer or its text.
            status_code: The HTTP status; by default the response's, else the class's.
            request_id: The promise concerned, where there is one.
            retry_after_s: Seconds that the service asked to wait, if it did.
        """
        super().__init__(message, body=body, request_id=request_id)
        self.status_code = _status(status_code, response, self.default_status)
        self.retry_after_s = retry_after_s


class APIResponseValidationError(APIError):
    """A 2xx answer whose body does not fit the schema of the call.

    Attributes:
        status_code: The HTTP status.
    """

    def __init__(
        self,
        response: object = None,
        body: object = None,
        message: str | None = None,
        *,
        status_code: int | None = None,
    ) -> None:
        """Take a message, or upstream's response and body.

        Args:
            response: Anything with a ``status_code``, which alone is kept; or the message.
            body: The parsed JSON body of the answer or its text.
            message: What does not fit.
            status_code: The HTTP status; by default the response's, else 200.
        """
        given = response if isinstance(response, str) else message
        super().__init__(given or "Data returned by API invalid for expected schema.", body=body)
        self.status_code = _status(status_code, response, _OK)


_OK = 200


def _status(status_code: int | None, response: object, default: int) -> int:
    found = getattr(response, "status_code", default) if status_code is None else status_code
    return int(found)


class BadRequestError(APIStatusError):
    """400."""

    default_status = 400


class AuthenticationError(APIStatusError):
    """401."""

    default_status = 401


class BillingError(APIStatusError):
    """402."""

    default_status = 402


class PermissionDeniedError(APIStatusError):
    """403."""

    default_status = 403


class NotFoundError(APIStatusError):
    """404."""

    default_status = 404


class ConflictError(APIStatusError):
    """409."""

    default_status = 409


class UnprocessableEntityError(APIStatusError):
    """422."""

    default_status = 422


class RateLimitError(APIStatusError):
    """429."""

    default_status = 429


class InternalServerError(APIStatusError):
    """500 and above."""

    default_status = 500


class APIConnectionError(APIError):
    """No response: the connection could not be made, or broke."""

    default_message: ClassVar[str] = "Connection error."

    def __init__(
        self, request: object = None, message: str | None = None, *, request_id: str | None = None
    ) -> None:
        """Take a message, alone or after upstream's request, which is not kept.

        Args:
            request: Not kept; or the message.
            message: What went wrong, for people.
            request_id: The promise concerned, where there is one.
        """
        given = request if isinstance(request, str) else message
        super().__init__(self.default_message if given is None else given, request_id=request_id)


class APITimeoutError(APIConnectionError):
    """No response within the timeout of the call."""

    default_message = "Request timed out."


class RequestFailedError(TinkerError):
    """An operation that the service accepted and that then failed.

    Attributes:
        message: The service's own words.
        request_id: The promise that failed.
        category: ``user`` (the request was at fault), ``server`` or ``unknown``.
    """

    def __init__(
        self,
        message: str,
        request_id: str,
        category: RequestErrorCategory | str = RequestErrorCategory.Unknown,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.category = RequestErrorCategory.of(category)


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


class StaleHandleError(TinkerError, RuntimeError):
    """A handle or client whose owner was closed or replaced.

    Also a ``RuntimeError``, which is what upstream raises when a closed client is used.
    """


class PoisonedClientError(TinkerError, RuntimeError):
    """A training client whose custom loss failed takes no further operations.

    What was called after it counted on its gradients. Also a ``RuntimeError``, which is what
    upstream raises here.
    """


class ModelLostError(TinkerError):
    """The service lost the model of a run, and it could not be restored.

    Attributes:
        checkpoint: What it was to be restored from; None if nothing had been saved.
    """

    def __init__(self, message: str, *, checkpoint: str | None = None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


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


class UnfulfilledError(TinkerError, RuntimeError):
    """The service answered, but did not do what was asked: it cannot, or it is too old for it.

    Also a ``RuntimeError``, which is what upstream raises in these places.
    """


class RetryableError(TinkerError):
    """The service lost a promise: a fresh attempt of the whole operation is in order.

    Upstream calls it ``RetryableException`` and keeps it out of the ``TinkerError`` tree; here it
    is part of the tree so that one ``except TinkerError`` catches all.
    """


RetryableException = RetryableError
"""Upstream's name."""


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

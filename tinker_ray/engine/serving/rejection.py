"""A request that the engine does not accept, and the HTTP status that says so.

Knows nothing of FastAPI: :mod:`tinker_ray.engine.serving.app` turns it into an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping


class RequestRejected(EngineError):  # noqa: N818 - an event, answered and not raised to users
    """The request is wrong, and nothing was done.

    Attributes:
        status_code: The HTTP status of the answer.
        field: The path of what is wrong in the request, such as ``adam_params.learning_rate``.
        headers: Of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        status_code: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message, category="user")
        self.field = field
        self.status_code = status_code
        self.headers = dict(headers or {})


def not_found(message: str, field: str) -> RequestRejected:
    """Make the rejection of a request that names something unknown, or not the caller's."""
    return RequestRejected(message, field=field, status_code=404)


def gone(message: str, field: str) -> RequestRejected:
    """Make the rejection of a request for something that existed and is lost or ended."""
    return RequestRejected(message, field=field, status_code=410)

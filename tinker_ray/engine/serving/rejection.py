"""A request that the engine does not accept, and the HTTP status that says so.

Knows nothing of FastAPI: :mod:`tinker_ray.engine.serving.app` turns it into an answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACE = re.compile(r"(?:[a-z]+[_.\[][^\s:]*|[a-z]+(?=:)|(?:data|graph|inputs)\b)")
"""The place in a request that a message begins with, such as ``data[3].model_input``."""


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


def rejected(error: EngineError) -> RequestRejected:
    """Make the rejection of what the engine below refused: its message begins with the place."""
    place = _PLACE.match(error.message)
    rejection = RequestRejected(error.message)
    rejection.field = "" if place is None else place.group()
    return rejection


def not_found(message: str, field: str) -> RequestRejected:
    """Make the rejection of a request that names something unknown, or not the caller's."""
    return RequestRejected(message, field=field, status_code=404)


def gone(message: str, field: str) -> RequestRejected:
    """Make the rejection of a request for something that existed and is lost or ended."""
    return RequestRejected(message, field=field, status_code=410)

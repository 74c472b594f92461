"""Options of clients and of single calls under their upstream names.

Some exist only because scripts name them. Knows nothing of what the clients do.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar

from tinker_ray.config import Settings
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")


class RequestOptions(TypedDict, total=False):
    """What upstream's low-level calls take; ours have no such options."""

    headers: Mapping[str, str]
    max_retries: int
    timeout: float | None
    params: Mapping[str, object]
    extra_json: Mapping[str, object]
    idempotency_key: str


class NotGiven:
    """The type of :data:`NOT_GIVEN`."""

    def __bool__(self) -> Literal[False]:
        """Count as nothing."""
        return False

    def __repr__(self) -> str:
        """Show the name of the only one."""
        return "NOT_GIVEN"


class Omit:
    """Upstream's marker for a default header that is to be left out."""

    def __bool__(self) -> Literal[False]:
        """Count as nothing."""
        return False


NOT_GIVEN = NotGiven()
"""Stands for an argument that was not passed."""

CLIENT_KWARGS = ("timeout", "max_retries", "default_headers", "default_query")
"""What the older generation's ``ServiceClient`` hands to its HTTP client, and ours understands."""
_IGNORED = ("_strict_response_validation",)


def settings_of(
    *,
    base_url: str | None,
    api_key: str | None,
    project_id: str | None = None,
    default_headers_overrides: Mapping[str, str] | None = None,
    **kwargs: Any,  # noqa: ANN401 - options of the older generation
) -> Settings:
    """Read the environment, and what a client was given.

    Raises:
        ConfigurationError: A value cannot work, or an option would be silently without effect.
    """
    if kwargs.get("http_client") is not None:
        message = (
            "http_client=… cannot be used here: connections are opened per traffic class and on "
            "other machines too; use timeout, max_retries, default_headers or default_query"
        )
        raise ConfigurationError(message)
    known = {*CLIENT_KWARGS, *_IGNORED, "http_client"}
    unknown = sorted(name for name in kwargs if name not in known)
    if unknown:
        warnings.warn(
            f"the arguments {', '.join(unknown)} are not known and have no effect",
            FutureWarning,
            stacklevel=3,
        )
    return Settings.from_env(
        base_url=base_url,
        api_key=api_key,
        project_id=project_id,
        default_headers=kwargs.get("default_headers"),
        default_headers_overrides=default_headers_overrides,
        default_query=kwargs.get("default_query"),
        timeout_s=_seconds(kwargs.get("timeout")),
        max_retries=kwargs.get("max_retries"),
    )


def _seconds(timeout: Any) -> float | None:  # noqa: ANN401 - a number or an httpx.Timeout
    """Take the read timeout of what may be a timeout object."""
    if timeout is None or timeout is NOT_GIVEN:
        return None
    read = getattr(timeout, "read", timeout)
    return None if read is None else float(read)


def resolve_base_url(base_url: str | None = None) -> str:
    """Return the address that a client uses: the given one, the environment's, or the default."""
    return Settings.from_env(base_url=base_url).base_url


def sync_only(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that blocks, as upstream does; it may block anywhere but on the bridge."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper

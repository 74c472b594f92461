"""An API key asks about itself: the two calls that take the key as it is, never a token for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.core.link import Link
from tinker_ray.transport.auth import ApiKey
from tinker_ray.transport.clock import MonotonicClock
from tinker_ray.transport.http import HttpTransport
from tinker_ray.types.service import SelfApiKeyResponse
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.message import Transport

    Opener = Callable[[Settings, Credentials], Transport]


async def describe_api_key(
    settings: Settings, *, transport: Opener = HttpTransport.from_settings
) -> SelfApiKeyResponse:
    """Ask the service what it knows of the key in the settings.

    Raises:
        ConfigurationError: There is no key, or it or the address cannot work.
        AuthenticationError: The service does not know the key.
        APIError: The service refused otherwise, or could not be reached.
    """
    link = _open(settings, transport)
    try:
        return await link.call(endpoint.GET_API_KEY, SelfApiKeyResponse)
    finally:
        await link.aclose()


async def revoke_api_key(
    settings: Settings, *, transport: Opener = HttpTransport.from_settings
) -> None:
    """Have the service forget the key in the settings, and no other.

    Raises:
        ConfigurationError: There is no key, or it or the address cannot work.
        APIError: The service refused, or could not be reached.
    """
    link = _open(settings, transport)
    try:
        await link.send(endpoint.DELETE_API_KEY)
    finally:
        await link.aclose()


def _open(settings: Settings, transport: Opener) -> Link:
    """Connect with the key itself: no command and no token takes its place."""
    return Link(transport(settings, ApiKey(settings.required_key())), MonotonicClock())

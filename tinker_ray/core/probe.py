"""Whether a service lets this process in: asked once, without the patience of other calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinker_ray.core.connection import open_link
from tinker_ray.core.flags import ServerFlags, fetch_flags
from tinker_ray.transport.http import HttpTransport
from tinker_ray.types import GetServerCapabilitiesResponse
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.message import Transport
    from tinker_ray.wire.endpoint import Endpoint

PROBE_S = 10.0


async def probe(
    settings: Settings,
    *,
    timeout_s: float = PROBE_S,
    transport: Callable[[Settings, Credentials], Transport] = HttpTransport.from_settings,
) -> GetServerCapabilitiesResponse:
    """Ask which base models a service offers, and repeat nothing that fails.

    Args:
        settings: The service, and this process's credential.
        timeout_s: For each of the questions.
        transport: Opens the connections.

    Raises:
        ConfigurationError: There is no credential, or it or the address cannot work.
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """

    def once(call: Endpoint) -> Endpoint:
        return replace(call, retries=0, budget_s=0.0, timeout_s=timeout_s)

    link = open_link(settings, ServerFlags(), transport=transport)
    try:
        flags = await fetch_flags(link, once(endpoint.CLIENT_CONFIG))
        if flags.pjwt_auth_enabled:
            await link.aclose()
            link = open_link(settings, flags, transport=transport)
        return await link.call(
            once(endpoint.GET_SERVER_CAPABILITIES), GetServerCapabilitiesResponse
        )
    finally:
        await link.aclose()

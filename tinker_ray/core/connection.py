"""Connecting to a service: which credential it takes, and what it can do.

The first question goes out with the credential at hand; its answer says whether that is to be
exchanged for short-lived tokens from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinker_ray.core.flags import ServerFlags, fetch_dynamic_flags, fetch_flags
from tinker_ray.core.link import Link
from tinker_ray.transport.auth import resolve
from tinker_ray.transport.clock import MonotonicClock
from tinker_ray.transport.engine import EngineTransport
from tinker_ray.transport.exchange import exchanged
from tinker_ray.transport.http import HttpTransport
from tinker_ray.transport.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.clock import Clock
    from tinker_ray.transport.message import Transport


def open_transport(settings: Settings, credentials: Credentials) -> Transport:
    """Open connections; an embedded engine's end is noticed at once.

    Raises:
        ConfigurationError: The address cannot work.
    """
    transport = HttpTransport.from_settings(settings, credentials)
    if settings.engine is None:
        return transport
    return EngineTransport(transport, settings.engine)


async def connect(
    settings: Settings,
    *,
    clock: Clock | None = None,
    transport: Callable[[Settings, Credentials], Transport] = open_transport,
) -> Link:
    """Connect to a service of which nothing is known yet, and learn what it wants.

    Args:
        settings: The service, and the credential.
        clock: By default the machine's.
        transport: Opens the connections.

    Raises:
        ConfigurationError: There is no credential, or it or the address cannot work.
        APIError: The service refused or could not be reached.
    """
    # With the defaults, for the first question; what they do not fit is opened anew.
    link = open_link(settings, ServerFlags(), clock=clock, transport=transport)
    try:
        flags = await fetch_flags(link)
        if flags.pjwt_auth_enabled:
            await link.aclose()
            link = open_link(settings, flags, clock=clock, transport=transport)
        if flags.protobuf:
            flags = replace(flags, dynamic=await fetch_dynamic_flags(link))
        link.adopt(flags)
    except BaseException:
        await link.aclose()
        raise
    return link


def open_link(
    settings: Settings,
    flags: ServerFlags,
    *,
    clock: Clock | None = None,
    transport: Callable[[Settings, Credentials], Transport] = open_transport,
) -> Link:
    """Open connections to a service that another process has asked what it wants.

    Args:
        settings: The service, and this process's own credential.
        flags: What the service wants.
        clock: By default the machine's.
        transport: Opens the connections.

    Raises:
        ConfigurationError: There is no credential, or it or the address cannot work.
    """
    clock = clock or MonotonicClock()
    credentials = credentials_for(settings, flags, clock, transport)
    return Link(
        transport(settings, credentials),
        clock,
        flags,
        credentials,
        Patience(max_retries=settings.max_retries),
    )


def credentials_for(
    settings: Settings,
    flags: ServerFlags,
    clock: Clock,
    transport: Callable[[Settings, Credentials], Transport] = HttpTransport.from_settings,
) -> Credentials:
    """Choose what a service is authenticated to by.

    Raises:
        ConfigurationError: There is no credential, or it or the address cannot work.
    """
    if not flags.pjwt_auth_enabled:
        return resolve(settings)
    command_only = flags.credential_default_source == "credential_cmd"
    own = resolve(settings, command_only=command_only, exchanged=True)
    return exchanged(transport(settings, own), clock)

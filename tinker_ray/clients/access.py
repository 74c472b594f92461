"""Whether a service lets this process in, asked once and without patience."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.session import ClientSession
from tinker_ray.types import GetServerCapabilitiesResponse
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.config import Settings

_ONCE = replace(endpoint.GET_SERVER_CAPABILITIES, retries=0, budget_s=0.0)


def check_access(settings: Settings) -> None:
    """Ask which base models the service offers. Blocks.

    Raises:
        ConfigurationError: There is no credential.
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    session = ClientSession(settings)
    try:
        APIFuture.start(_ask(session)).result()
    finally:
        session.close("success")


async def _ask(session: ClientSession) -> None:
    link = await session.link()
    await link.call(_ONCE, GetServerCapabilitiesResponse)

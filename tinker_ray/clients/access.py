"""Whether a service lets this process in, asked once and without patience."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.mode import embedded_engine
from tinker_ray.core.connection import open_transport
from tinker_ray.core.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.config import Settings
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.message import Transport


def check_access(
    settings: Settings,
    transport: Callable[[Settings, Credentials], Transport] = open_transport,
) -> None:
    """Ask which base models the service offers; starts an embedded engine for it. Blocks.

    Raises:
        ConfigurationError: There is no credential.
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    settings, engine = embedded_engine(settings)
    try:
        APIFuture.start(probe(settings, transport=transport)).result()
    finally:
        if engine is not None:
            engine.close()

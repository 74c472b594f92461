"""What the service keeps, for callers anywhere on the cluster. Knows nothing of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.core.registry import RegistryCore

if TYPE_CHECKING:
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link


class CheckpointActor:
    """The REST operations of one session.

    Args:
        service: The session.
        link: The service; by default one is opened from the environment.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(self, service: ServiceSpec, *, link: Link | None = None) -> None:
        self._link = link or service.open_link()
        self._core = RegistryCore(self._link)

    def __repr__(self) -> str:
        """Show what it talks to."""
        return f"CheckpointActor({self._core!r})"

    async def fetch(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of :class:`RegistryCore` by name.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        return await self._core.call(name, arguments)

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._link.aclose()

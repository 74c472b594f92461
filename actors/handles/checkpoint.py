"""The service's records as clients hold them; the actor is started by the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.core.sdk_method import carry
from tinker_ray.telemetry.carrier import inject

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.handles.remote import RemoteActor

_READING = ("get_", "list_", "weights_info")


class CheckpointHandle:
    """Calls the checkpoint actor.

    Args:
        start: Starts the actor.
    """

    def __init__(self, start: Callable[[], RemoteActor]) -> None:
        self._start = start
        self._remote: RemoteActor | None = None

    def __repr__(self) -> str:
        """Show the actor, if there is one."""
        return f"CheckpointHandle({self._remote!r})"

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of :class:`tinker_ray.core.registry.RegistryCore` by name.

        Raises:
            APIError: The service refused or could not be reached.
            ActorLostError: The actor died over a change, whose outcome is unknown, or for good.
        """
        if self._remote is None:
            self._remote = self._start()
        if name.startswith(_READING):
            return await self._remote.call_until_answered(
                "fetch", lambda: (name, arguments), carry(inject())
            )
        return await self._remote.call("fetch", name, arguments, carrier=carry(inject()))

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """End the actor; idempotent."""
        if self._remote is not None:
            await self._remote.aclose(drain_s=drain_s)

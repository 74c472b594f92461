"""The service's records as clients hold them; the actor is started by the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.config import Secret
from tinker_ray.core.registry import RegistryCore
from tinker_ray.core.sdk_method import carry
from tinker_ray.telemetry.carrier import inject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.handles.remote import RemoteActor
    from tinker_ray.core.link import Link

_READING = ("get_", "list_", "weights_info", "whoami", "search_", "export_")


class CheckpointHandle:
    """Calls the checkpoint actor.

    Args:
        start: Starts the actor.
        open_link: Gives connections of this process's own, for what no actor may know.
    """

    def __init__(
        self, start: Callable[[], RemoteActor], open_link: Callable[[], Awaitable[Link]]
    ) -> None:
        self._start = start
        self._open_link = open_link
        self._remote: RemoteActor | None = None

    def __repr__(self) -> str:
        """Show the actor, if there is one."""
        return f"CheckpointHandle({self._remote!r})"

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of :class:`tinker_ray.core.registry.RegistryCore` by name.

        One with a secret among its arguments is called in this process.

        Raises:
            APIError: The service refused or could not be reached.
            ActorLostError: The actor died over a change, whose outcome is unknown, or for good.
        """
        if any(isinstance(value, Secret) for value in arguments.values()):
            return await RegistryCore(await self._open_link()).call(name, arguments)
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

"""A fleet of samplers that nobody starts or ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.handles.sampler import SamplerPoolHandle
    from tinker_ray.errors import TinkerError


class FixedFleet:
    """Adds some samplers to a pool at once; remembers what it is told.

    Args:
        remotes: The samplers.
    """

    def __init__(self, remotes: Sequence[Any]) -> None:
        self.remotes = remotes
        self.wakes = 0
        self.up: list[str] = []
        self.gone: list[tuple[str, type[TinkerError]]] = []
        self.closed = False

    def begin(self, pool: SamplerPoolHandle) -> None:
        """Add the samplers."""
        for remote in self.remotes:
            pool.add(remote)

    def wake(self) -> None:
        """Count."""
        self.wakes += 1

    def came_up(self, name: str, node: str) -> None:  # noqa: ARG002 - named like the sampler
        """Remember who."""
        self.up.append(name)

    def is_gone(self, name: str, error: TinkerError) -> None:
        """Remember who, and why."""
        self.gone.append((name, type(error)))

    async def aclose(self) -> None:
        """Remember."""
        self.closed = True

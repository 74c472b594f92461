"""The policy of a run while it is trained: the newest sampler, and the number of its version.

Knows nothing of groups. Invariant: versions only grow; whoever starts a group asks once and stays
with what it got.
"""

from __future__ import annotations

from collections.abc import Callable

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import Sampler


class LivePolicy:
    """A sampler that is replaced as training goes on; for use on one event loop.

    Args:
        sampler: Draws from the first version.
        version: Its number, such as the number of steps done.

    Attributes:
        sampler: Draws from the newest version.
        version: The number of the newest version.
    """

    def __init__(self, sampler: Sampler, version: int = 0) -> None:
        self.sampler = sampler
        self.version = version
        self._listeners: list[Callable[[int], None]] = []

    def __repr__(self) -> str:
        """Show the newest version."""
        return f"LivePolicy(version={self.version}, sampler={self.sampler!r})"

    def publish(self, sampler: Sampler, version: int | None = None) -> None:
        """Let groups that start from now on be drawn by a new sampler.

        Args:
            sampler: Draws from the new version.
            version: Its number; None adds one to the last.

        Raises:
            ConfigurationError: The number is not above the last.
        """
        version = self.version + 1 if version is None else version
        if version <= self.version:
            message = f"version={version!r} is not above {self.version}, which was published before"
            raise ConfigurationError(message)
        self.sampler = sampler
        self.version = version
        for listener in list(self._listeners):
            listener(version)

    def listen(self, listener: Callable[[int], None]) -> Callable[[], None]:
        """Call a function with the number of each new version; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

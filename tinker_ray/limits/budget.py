"""How many bytes of prompts one process may have under way.

Does not know what a prompt is. Invariant: nothing is admitted while more than the capacity is under
way.
"""

from __future__ import annotations

BYTES_UNDER_WAY = 10 * 1024 * 1024
"""The upstream SDK's budget for one process."""


class ByteBudget:
    """Admits requests while any budget is left, so that a single oversize one always passes.

    The upstream SDK's rule: admission needs a budget that is not negative, then takes the whole
    cost, which may drive the budget below zero; nothing else is admitted until it has recovered.
    """

    def __init__(self, capacity_bytes: int = BYTES_UNDER_WAY) -> None:
        """Start with nothing under way."""
        self.capacity_bytes = capacity_bytes
        self._left_bytes = capacity_bytes

    def __repr__(self) -> str:
        """Show the state."""
        return f"ByteBudget({self._left_bytes} of {self.capacity_bytes} bytes left)"

    @property
    def left_bytes(self) -> int:
        """What is left; negative after an oversize request."""
        return self._left_bytes

    def admits(self) -> bool:
        """Whether a request of any size may pass now."""
        return self._left_bytes >= 0

    def take(self, cost_bytes: int) -> None:
        """Let a request pass, after :meth:`admits`; to be returned by :meth:`release`.

        Raises:
            ValueError: The cost is negative.
        """
        if cost_bytes < 0:
            message = f"the cost of a request is negative: {cost_bytes} bytes"
            raise ValueError(message)
        self._left_bytes -= cost_bytes

    def release(self, cost_bytes: int) -> None:
        """Return what was taken.

        Raises:
            ValueError: More is returned than was taken.
        """
        if not 0 <= cost_bytes <= self.capacity_bytes - self._left_bytes:
            message = f"{cost_bytes} bytes released of {self.capacity_bytes - self._left_bytes}"
            raise ValueError(message)
        self._left_bytes += cost_bytes

"""The numbers of a model's operations, as one client issues them: in the order of the calls."""

from __future__ import annotations

import threading


class Order:
    """Issues numbers, and knows which are still open. Safe to use from several threads."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._open: set[int] = set()
        self._lock = threading.Lock()

    def take(self, count: int = 1) -> range:
        """Issue consecutive numbers."""
        with self._lock:
            numbers = range(self._next, self._next + count)
            self._next += count
            self._open.update(numbers)
            return numbers

    def close(self, number: int) -> None:
        """Note that an operation was acknowledged, or given up."""
        with self._lock:
            self._open.discard(number)

    @property
    def next_number(self) -> int:
        """The number that is issued next; whoever shares the model takes over from here."""
        with self._lock:
            return self._next

    @property
    def floor(self) -> int:
        """Every number below it is closed."""
        with self._lock:
            return min(self._open, default=self._next)

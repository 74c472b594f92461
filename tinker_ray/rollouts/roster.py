"""The workers of a run and the attempts on them.

Knows nothing of groups beyond their numbers. Invariant: a worker that is there runs at most as many
attempts as it has room for, and one that is to leave gets no new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_ray.rollouts.worker import AttemptId


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt under way.

    Attributes:
        worker: Where.
        version: Of the policy that it is bound to.
        began_s: When it was started.
        is_suspect: Whether its group may be what workers die of.
    """

    worker: str
    version: int
    began_s: float
    is_suspect: bool = False


@dataclass(slots=True)
class _Worker:
    capacity: int
    attempts: set[AttemptId] = field(default_factory=set)
    num_suspects: int = 0
    is_draining: bool = False

    @property
    def room(self) -> int:
        return 0 if self.is_draining else self.capacity - len(self.attempts)


class Roster:
    """Who runs what."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        self._running: dict[AttemptId, Running] = {}

    def __repr__(self) -> str:
        """Show workers and attempts."""
        return f"Roster({self._workers}, {self._running})"

    def __len__(self) -> int:
        """Count the attempts."""
        return len(self._running)

    def __iter__(self) -> Iterator[tuple[AttemptId, Running]]:
        """Go through the attempts, the one that was started first first."""
        return iter(list(self._running.items()))

    @property
    def capacity(self) -> int:
        """How many attempts the workers that stay have room for in all."""
        return sum(worker.capacity for worker in self._workers.values() if not worker.is_draining)

    @property
    def oldest(self) -> Running | None:
        """The attempt that was started first."""
        return next(iter(self._running.values()), None)

    def join(self, worker: str, capacity: int) -> None:
        """Add a worker; one that is there already stays as it is."""
        self._workers.setdefault(worker, _Worker(capacity))

    def drain(self, worker: str) -> None:
        """Give a worker no new attempts."""
        if worker in self._workers:
            self._workers[worker].is_draining = True

    def lose(self, worker: str) -> list[AttemptId]:
        """Remove a worker; returns what it ran, in order."""
        lost = self._workers.pop(worker, None)
        attempts = sorted(lost.attempts) if lost else []
        for attempt in attempts:
            del self._running[attempt]
        return attempts

    def freest(self) -> str | None:
        """Name the worker with most room; None if there is no room."""
        return self._freest(self._workers)

    def freest_without_suspect(self) -> str | None:
        """Name the worker with most room of those that run no suspect; None if there is none."""
        return self._freest(name for name, one in self._workers.items() if not one.num_suspects)

    def _freest(self, names: Iterable[str]) -> str | None:
        name = max(names, key=lambda worker: self._workers[worker].room, default=None)
        return name if name is not None and self._workers[name].room > 0 else None

    def start(self, attempt: AttemptId, running: Running) -> None:
        """Note an attempt."""
        self._running[attempt] = running
        worker = self._workers[running.worker]
        worker.attempts.add(attempt)
        worker.num_suspects += running.is_suspect

    def stop(self, attempt: AttemptId) -> Running | None:
        """Take an attempt off its worker; None if it does not run."""
        running = self._running.pop(attempt, None)
        if running is not None:
            worker = self._workers[running.worker]
            worker.attempts.discard(attempt)
            worker.num_suspects -= running.is_suspect
        return running

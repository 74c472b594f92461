"""The samples that wait in one process, and whose turn is next: fair among labels by weight.

Pure, and knows nothing of permits. Invariant: while two labels have samples waiting, they are
served in proportion to their weights, to within one sample each; within a label first come, first
served.

Source: start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996, with samples of equal cost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tinker_ray.limits.share import DEFAULT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Stage(Enum):
    """Where a sample is."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    AT_WORK = "at work"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Ticket:
    """A sample, as far as limits are concerned.

    Attributes:
        label: The kind of traffic.
        est_bytes: The estimated size of its prompt.
        stage: Where it is.
        price: What it moved its label back in the line by.
    """

    label: str = DEFAULT_LABEL
    est_bytes: int = 0
    stage: Stage = Stage.WAITING
    price: float = 0.0


class FairQueue:
    """Tickets by label.

    Example::

        queue.push(ticket, weight=3.0)
        ticket = queue.pop()
        queue.push_back(ticket)      # it was turned away: first of its label again
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[Ticket]] = {}
        self._counts: dict[str, int] = {}
        self._weights: dict[str, float] = {}
        self._shares: Mapping[str, float] = {}
        self._due: dict[str, float] = {}
        """The virtual time at which each label's next ticket is due."""
        self._virtual_time = 0.0
        self._num_waiting = 0

    def __repr__(self) -> str:
        """Show how many wait, label by label."""
        lines = ", ".join(f"{label or 'any'}: {count}" for label, count in self._counts.items())
        return f"FairQueue({lines or 'nobody'})"

    def __len__(self) -> int:
        """How many wait."""
        return self._num_waiting

    def count(self, label: str) -> int:
        """How many of a label wait."""
        return self._counts.get(label, 0)

    def weight(self, label: str) -> float:
        """The weight of a label, as it came with its last ticket."""
        return self._weights.get(label, 1.0)

    @property
    def labels(self) -> Iterator[str]:
        """The labels that ever had tickets."""
        return iter(self._weights)

    def push(self, ticket: Ticket, weight: float = 1.0) -> None:
        """Add a ticket to the end of its label's line.

        Raises:
            ValueError: The weight is not above 0.
        """
        if not weight > 0:
            raise ValueError(f"the weight of label {ticket.label!r} is {weight}, not above 0")
        self._weights[ticket.label] = weight
        self._enter(ticket)
        self._lines.setdefault(ticket.label, deque()).append(ticket)

    def push_back(self, ticket: Ticket) -> None:
        """Put a ticket that was taken back to where it was, as if it had not been served."""
        self._enter(ticket)
        self._due[ticket.label] -= ticket.price
        self._lines.setdefault(ticket.label, deque()).appendleft(ticket)

    def pop(self) -> Ticket | None:
        """Take the ticket whose turn it is; None if nobody waits."""
        if not self._num_waiting:
            return None
        label = min((label for label, count in self._counts.items() if count), key=self._due_at)
        line = self._lines[label]
        while (ticket := line.popleft()).stage is not Stage.WAITING:
            pass
        self._leave(label)
        self._virtual_time = max(self._virtual_time, self._due[label])
        ticket.price = 1.0 / self._pace(label)
        self._due[label] += ticket.price
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket that waits."""
        ticket.stage = Stage.ENDED
        self._leave(ticket.label)

    def divide_by(self, shares: Mapping[str, float]) -> None:
        """Serve labels in proportion to their shares of what this process has been given."""
        self._shares = shares

    def _due_at(self, label: str) -> float:
        return self._due[label]

    def _pace(self, label: str) -> float:
        return max(self._shares.get(label, 0.0), 1e-3) if self._shares else self.weight(label)

    def _enter(self, ticket: Ticket) -> None:
        ticket.stage = Stage.WAITING
        label = ticket.label
        if not self._counts.get(label):
            self._due[label] = max(self._due.get(label, 0.0), self._virtual_time)
        self._counts[label] = self._counts.get(label, 0) + 1
        self._num_waiting += 1

    def _leave(self, label: str) -> None:
        self._counts[label] -= 1
        self._num_waiting -= 1

"""What the dispatcher hears (past tense) and what it answers (imperative).

Knows nothing of the machine in between. Invariant: all of them are frozen values of numbers and
strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tinker_ray.rollouts.failure import FailureKind

if TYPE_CHECKING:
    from tinker_ray.rollouts.worker import AttemptId

DropReason: TypeAlias = Literal[FailureKind, "cancelled"]


@dataclass(frozen=True, slots=True)
class GroupOffered:
    """A group waits to be run."""

    group: int


@dataclass(frozen=True, slots=True)
class GroupTaken:
    """The consumer took a delivered group, which gives its permit back."""

    group: int


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker is ready to run ``capacity`` groups at once."""

    worker: str
    capacity: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died; what it ran is gone."""

    worker: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """A worker returned a group."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A worker gave up on a group, and lives."""

    attempt: AttemptId
    kind: FailureKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """Nobody waits for groups any more."""

    detail: str = ""


Event: TypeAlias = (
    GroupOffered
    | GroupTaken
    | WorkerJoined
    | WorkerLost
    | AttemptFinished
    | AttemptFailed
    | RunCancelled
)


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run a group on a worker, with fresh environments."""

    attempt: AttemptId
    worker: str


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop an attempt whose result nobody will take."""

    attempt: AttemptId
    worker: str


@dataclass(frozen=True, slots=True)
class DeliverGroup:
    """Give the result of this attempt to the consumer."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class DropGroup:
    """Tell the consumer that a group will not come, and why."""

    group: int
    reason: DropReason
    detail: str = ""


Command: TypeAlias = StartAttempt | CancelAttempt | DeliverGroup | DropGroup

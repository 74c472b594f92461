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

DropReason: TypeAlias = Literal[
    FailureKind, "deadly", "stale", "oversampled", "quarantined", "halted", "drained", "cancelled"
]
"""A class of failure, if the group failed for good; ``deadly``: workers died under it again and
again, at last with no other such group beside it; ``stale``: its policy is older than allowed;
``oversampled``: its step had its groups without it; ``quarantined``: its builder failed too often;
``halted``: nothing worked any more; ``drained``, ``cancelled``: the consumer wanted no more."""


def kind_of(reason: DropReason) -> FailureKind:
    """Give the class of failure behind a drop; what is nobody's failure counts as ours."""
    match reason:
        case "infrastructure" | "environment" | "request" | "gone" | "timeout" | "stall":
            return reason
        case _:
            return "infrastructure"


@dataclass(frozen=True, slots=True)
class GroupOffered:
    """A group waits to be run; numbers only grow. The key names its builder, where that matters."""

    group: int
    key: str | None = None


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
class WorkerDraining:
    """A worker is to leave when it has ended what it runs."""

    worker: str


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
class PolicyPublished:
    """There is a newer version of the policy; attempts that start from now on use it."""

    version: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """It is as late as the machine wanted to be woken."""


@dataclass(frozen=True, slots=True)
class RunDrained:
    """No new groups are wanted; those under way are."""


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """Nobody waits for groups any more."""

    detail: str = ""


Event: TypeAlias = (
    GroupOffered
    | GroupTaken
    | WorkerJoined
    | WorkerDraining
    | WorkerLost
    | AttemptFinished
    | AttemptFailed
    | PolicyPublished
    | TimePassed
    | RunDrained
    | RunCancelled
)


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run a group on a worker, with fresh environments and one version of the policy."""

    attempt: AttemptId
    worker: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop an attempt whose result nobody will take."""

    attempt: AttemptId
    worker: str


@dataclass(frozen=True, slots=True)
class DeliverGroup:
    """Put the result of this attempt into the queue for the consumer.

    Attributes:
        attempt: Which one.
        place: How many groups are to be taken before it.
    """

    attempt: AttemptId
    place: int = 0


@dataclass(frozen=True, slots=True)
class DropGroup:
    """Tell the consumer that a group will not come, and why.

    Attributes:
        group: Which one.
        reason: Why.
        detail: In words.
        attempts: How often it was started.
        seconds: Since it was first started.
    """

    group: int
    reason: DropReason
    detail: str = ""
    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HaltRun:
    """Tell the consumer that the run is over because nothing works any more."""

    failures: int
    detail: str
    kind: FailureKind = "infrastructure"


Command: TypeAlias = StartAttempt | CancelAttempt | DeliverGroup | DropGroup | HaltRun

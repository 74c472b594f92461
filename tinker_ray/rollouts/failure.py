"""Why a group failed, in the classes on which retries are decided.

Knows nothing of retries themselves. Invariant: what leaves a worker is a
:class:`RolloutFailedError` of plain values, whatever a user's environment raised.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from tinker_ray.errors import (
    ActorLostError,
    APIConnectionError,
    APIStatusError,
    InternalServerError,
    RateLimitError,
    RequestFailedError,
    RetryableError,
    TinkerError,
)
from tinker_ray.wire.status import says_gone

FailureKind: TypeAlias = Literal[
    "infrastructure", "environment", "request", "gone", "timeout", "stall"
]
"""``infrastructure``: the same group may well succeed elsewhere; ``environment``: the user's code
raised; ``request``: the service refused what was asked of it, and would again; ``gone``: the
service does not have (any more) what the group was to be drawn with; ``timeout``: a stage took
longer than it may and was stopped; ``stall``: it could not even be stopped."""

SAMPLE: Final = "sample"
"""The stage in which actions are drawn."""
FETCH: Final = "fetch"
"""The stage in which the trajectories of a far group are read."""
LOST: Final = "its trajectories are lost with the node that had them"

DETAIL_LIMIT_CHARACTERS = 400

_INFRASTRUCTURE = (
    ActorLostError,
    APIConnectionError,
    InternalServerError,
    RateLimitError,
    RetryableError,
    OSError,
)


class RolloutFailedError(TinkerError):
    """A group of rollouts that did not come to its end.

    Attributes:
        kind: The class of the failure.
        stage: What was being done, such as ``step`` or ``sample``.
        detail: Type and words of the error underneath.
    """

    def __init__(self, *, kind: FailureKind, stage: str, detail: str) -> None:
        super().__init__(f"{stage} failed ({kind}): {detail}")
        self.kind: FailureKind = kind
        self.stage = stage
        self.detail = detail


class RolloutsHaltedError(RolloutFailedError):
    """A run that was ended because nothing worked any more.

    Attributes:
        failures: How many there were in a row.
    """

    def __init__(self, *, failures: int, detail: str, kind: FailureKind = "infrastructure") -> None:
        words = f"{failures} failures in a row, the newest: {detail}"
        super().__init__(kind=kind, stage="the run", detail=words)
        self.failures = failures


def classify(error: BaseException) -> FailureKind:
    """Tell which class an error belongs to."""
    if isinstance(error, RolloutFailedError):
        return error.kind
    if isinstance(error, RequestFailedError):
        return "request" if error.category == "user" else "infrastructure"
    if isinstance(error, _INFRASTRUCTURE):
        return "infrastructure"
    return "request" if isinstance(error, TinkerError) else "environment"


def describe(error: BaseException) -> str:
    """Write an error as one line of type and words."""
    text = " ".join(str(error).split())
    if len(text) > DETAIL_LIMIT_CHARACTERS:
        text = text[: DETAIL_LIMIT_CHARACTERS - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def as_rollout_failure(error: BaseException, *, stage: str) -> RolloutFailedError:
    """Turn any error into one that crosses process borders."""
    if isinstance(error, RolloutFailedError):
        return error
    # what an environment asks of the service for itself may be missing for reasons of its own
    is_gone = stage == SAMPLE and isinstance(error, APIStatusError) and says_gone(error)
    kind = "gone" if is_gone else classify(error)
    return RolloutFailedError(kind=kind, stage=stage, detail=describe(error))

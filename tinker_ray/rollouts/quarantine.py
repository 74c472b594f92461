"""Builders whose groups fail again and again: they are not run any more.

Knows nothing of workers. Invariant: what is remembered is bounded, however many builders there are.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Final

from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from tinker_ray.rollouts.event import DropReason

QUARANTINE_AFTER: Final = 3
MAX_KEYS: Final = 4096
POISON: Final[frozenset[DropReason]] = frozenset({"environment", "timeout", "stall", "deadly"})
"""Ends of a group that may be its builder's fault."""


class Quarantine:
    """Counts the failures in a row of each builder.

    Args:
        after: How many groups of a builder may fail in a row; None never holds one back.
        max_keys: How many builders are remembered; the one that failed longest ago is forgotten.

    Raises:
        ConfigurationError: ``after`` is less than 1.
    """

    def __init__(self, after: int | None = QUARANTINE_AFTER, *, max_keys: int = MAX_KEYS) -> None:
        if after is not None and after < 1:
            raise ConfigurationError(f"quarantine_after={after!r}: use None to hold nothing back")
        self._after = after
        self._max_keys = max_keys
        self._failures: dict[str, int] = {}

    def __repr__(self) -> str:
        """Show how many builders failed."""
        return f"Quarantine(after={self._after}, suspects={len(self._failures)})"

    @property
    def has_suspects(self) -> bool:
        """Whether any builder has failed: only then keys are of use."""
        return bool(self._failures)

    def holds(self, key: str | None) -> bool:
        """Whether a builder is not run any more."""
        return self._after is not None and self._failures.get(key or "", 0) >= self._after

    def note_failure(self, key: str | None, reason: DropReason) -> None:
        """Count a group that failed for good."""
        if self._after is None or not key or reason not in POISON:
            return
        self._failures[key] = self._failures.pop(key, 0) + 1
        if len(self._failures) > self._max_keys:
            del self._failures[next(iter(self._failures))]

    def note_success(self, key: str | None) -> None:
        """Forget the failures of a builder."""
        self._failures.pop(key or "", None)


def key_of(builder: object) -> str | None:
    """Name a builder so that an equal one, in a later epoch, has the same name.

    That is its attribute ``key`` if it has one, else a digest of its pickle; None if it does not
    pickle.
    """
    key = getattr(builder, "key", None)
    if isinstance(key, str | int):
        return f"key:{key}"
    try:
        pickled = pickle.dumps(builder)
    except Exception:  # noqa: BLE001 - whatever the user's objects raise
        return None
    return hashlib.blake2b(pickled, digest_size=16).hexdigest()

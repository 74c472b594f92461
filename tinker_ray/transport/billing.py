"""Waiting while the account cannot pay (402).

Pure: time is passed in. The service's own SDK asks again every 5 s, for an hour by default, and
tells of it once a minute: whoever settles the bill in time loses nothing.
"""

from __future__ import annotations

ASK_AGAIN_S = 5.0
TELL_AGAIN_S = 60.0
FORGET_S = 300.0
"""A 402 this long after the last one that was told of begins a new pause."""


class BillingPause:
    """One pause for all calls of a process, since its first 402.

    Args:
        longest_s: After so many seconds the 402s are errors.
    """

    def __init__(self, longest_s: float = 3600.0) -> None:
        self.longest_s = longest_s
        self._since: float | None = None
        self._told_at: float | None = None

    def __repr__(self) -> str:
        """Show since when it lasts."""
        return f"BillingPause(since={self._since}, longest_s={self.longest_s:g})"

    def begins_or_goes_on(self, now: float) -> bool:
        """Take in a 402, and tell whether to wait and ask again rather than to fail."""
        if self._told_at is not None and now - self._told_at > FORGET_S:
            self._since = self._told_at = None
        if self._since is None:
            self._since = now
        return now - self._since <= self.longest_s

    def is_to_be_told(self, now: float) -> bool:
        """Tell whether the user has to hear of the pause now; that counts as told."""
        if self._told_at is not None and now - self._told_at <= TELL_AGAIN_S:
            return False
        self._told_at = now
        return True

"""Times as arguments: ISO 8601, UTC unless they say otherwise."""

from __future__ import annotations

from datetime import UTC, datetime

from tinker_ray.cli.failure import CommandError


def parse(text: str) -> datetime:
    """Read a date or a time.

    Raises:
        CommandError: It is neither.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CommandError(
            f"{text!r} is no date", "Use ISO 8601: 2026-06-01 or 2026-06-01T12:00:00Z."
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)

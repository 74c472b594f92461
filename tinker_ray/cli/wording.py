"""Values in words, for tables: sizes, times, whether."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOTHING = "-"
_UNIT_BYTES = 1024
_UNITS = ("KB", "MB", "GB", "TB", "PB")
_RECENT = timedelta(days=30)
_STEPS = (
    (timedelta(weeks=1), "week"),
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
)


def size(num_bytes: int | None) -> str:
    """``1.2 MB``."""
    if num_bytes is None:
        return NOTHING
    if num_bytes < _UNIT_BYTES:
        return f"{num_bytes} B"
    amount = float(num_bytes)
    for unit in _UNITS:
        amount /= _UNIT_BYTES
        if amount < _UNIT_BYTES or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def when(time: datetime | None, now: datetime | None = None, *, absent: str = NOTHING) -> str:
    """``3 hours ago``, ``in 2 days``; the date for what is more than a month away."""
    if time is None:
        return absent
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    delta = (now or datetime.now(UTC)) - time
    distance = abs(delta)
    if distance > _RECENT:
        return f"{time:%Y-%m-%d}"
    for step, name in _STEPS:
        if distance >= step:
            count = distance // step
            amount = f"{count} {name}" + ("s" if count > 1 else "")
            return f"{amount} ago" if delta > timedelta() else f"in {amount}"
    return "just now" if delta >= timedelta() else "in less than a minute"


def whether(value: bool | None) -> str:  # noqa: FBT001 - the value itself
    """``yes`` or ``no``."""
    if value is None:
        return NOTHING
    return "yes" if value else "no"


def text(value: object) -> str:
    """Any value; nothing as a dash."""
    return NOTHING if value is None else str(value)


def count(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")

"""What may cross from one process to another: errors of classes that both sides know."""

from __future__ import annotations

import asyncio
import pickle

from tinker_ray.errors import TinkerError

_KNOWN = (TinkerError, ValueError, TypeError, LookupError, OSError, TimeoutError)


def portable(error: BaseException) -> Exception:
    """Return an error that survives the way to another process: the same one if it can.

    An error of a class that the other side may not have becomes a ``TinkerError`` that names it.
    """
    if isinstance(error, _KNOWN) and _survives(error):
        return error
    kind = "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
    return TinkerError(f"{kind}: {error}" if str(error) else kind)


def _survives(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever an exception's own methods raise
        return False

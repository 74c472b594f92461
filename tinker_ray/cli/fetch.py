"""Files behind signed addresses: fetched piece by piece, resumed where they broke off, checked.

The addresses may be of any host, and none of them is told a key: they are good by themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tinker_ray.config import Secret

if TYPE_CHECKING:
    from tinker_ray.cli.terminal import Progress

Find: TypeAlias = Callable[[], Awaitable[str]]
"""Says where a file is; asked again when that address has expired."""

_NOBODY = "http://nobody.invalid"
"""No address is of this service, so that none is sent its key."""


async def fetch(find: Find, destination: Path, progress: Progress) -> int:
    """Fetch a file; what an interrupted call has left is gone on with.

    Args:
        find: Says where it is.
        destination: Replaced when all is there.
        progress: Hears how far it is.

    Returns:
        Its size in bytes.

    Raises:
        APIStatusError: The server refused.
        APIConnectionError: There was no answer for as long as the repetitions last.
        APIResponseValidationError: What arrived is not what was announced.
    """
    from tinker_ray.core.download import Download
    from tinker_ray.transport.clock import MonotonicClock
    from tinker_ray.transport.http import HttpTransport

    def report(num_bytes: int, total_bytes: int | None) -> None:
        progress(num_bytes, total_bytes)

    transport = HttpTransport(_NOBODY, Secret("unused"))
    try:
        download = Download(transport, MonotonicClock(), find, destination, report)
        fetched = await download.run(overwrite=True)
    finally:
        await transport.aclose()
    # Checked already: the note beside the file is for files that are kept as they are.
    destination.with_name(f"{destination.name}.sha256").unlink(missing_ok=True)
    return fetched.num_bytes

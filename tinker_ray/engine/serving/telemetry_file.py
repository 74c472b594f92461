"""What clients report of themselves, one JSON line for each batch, in a file of bounded size.

Written by a thread, so that a slow disk holds nobody up; what it cannot keep up with is dropped.
"""

from __future__ import annotations

import json
import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MAX_WAITING = 256


class TelemetryFile:
    """A file, and the one before it.

    Args:
        path: The file; the one before it has ``.1`` at the end of its name.
        max_bytes: Where a file ends and a new one begins.
    """

    def __init__(self, path: Path, *, max_bytes: int = 16 << 20) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._waiting: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def write(self, batch: dict[str, Any]) -> None:
        """Take a batch; it is dropped if too many wait."""
        try:
            self._waiting.put_nowait(json.dumps(batch, separators=(",", ":")))
        except queue.Full:
            return

    def close(self) -> None:
        """Write what waits. Idempotent."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._append(line)
            except OSError:  # a full disk: reports are not worth failing for
                continue

    def _append(self, line: str) -> None:
        if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

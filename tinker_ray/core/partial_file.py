"""A file that arrives bit by bit: what is there of it, and what it is to become.

Knows nothing of where the bytes come from. What is needed to go on after a restart of the process
stands beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 1024 * 1024


class PartialFile:
    """The part of ``destination`` that has arrived. Every method blocks on the disk.

    Attributes:
        num_bytes: What is there.
        total_bytes: What there will be; None if that is not known.
        validator: Tells whether what follows belongs to what is there; None if nothing does.
    """

    def __init__(self, destination: Path) -> None:
        self.num_bytes = 0
        self.total_bytes: int | None = None
        self.validator: str | None = None
        self._destination = destination
        self._path = destination.with_name(f"{destination.name}.part")
        self._notes = destination.with_name(f"{destination.name}.part.json")
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    @property
    def sha256(self) -> str:
        """Of what is there, in hexadecimal."""
        return self._hash.hexdigest()

    def open(self) -> None:
        """Go on with what an earlier process has left, if it can be told whether that fits."""
        self._file = self._path.open("ab+")
        self.validator, self.total_bytes = self._read_notes()
        if self.validator is None:
            self.restart()
            return
        self._file.seek(0)
        while chunk := self._file.read(_READ_BYTES):
            self._hash.update(chunk)
            self.num_bytes += len(chunk)

    def close(self) -> None:
        """Keep what is there for the next time; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def describe(self, validator: str | None, total_bytes: int | None) -> None:
        """Note what the file is to become."""
        self.validator, self.total_bytes = validator, total_bytes
        notes = {"validator": validator, "total_bytes": total_bytes}
        self._notes.write_text(json.dumps(notes))

    def append(self, data: bytes) -> None:
        """Add what has arrived."""
        file = self._opened()
        file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        file = self._opened()
        file.seek(0)
        file.truncate()
        self._hash = hashlib.sha256()
        self.num_bytes = 0
        self.validator = self.total_bytes = None

    def complete(self) -> None:
        """Put the file in its place, and its checksum beside it."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        self.close()
        checksum = self._destination.with_name(f"{self._destination.name}.sha256")
        checksum.write_text(f"{self.sha256}  {self._destination.name}\n")
        self._path.replace(self._destination)
        self._notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what is there."""
        self.close()
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file

    def _read_notes(self) -> tuple[str | None, int | None]:
        with suppress(OSError, ValueError, AttributeError):
            notes = json.loads(self._notes.read_text())
            validator, total_bytes = notes.get("validator"), notes.get("total_bytes")
            if isinstance(validator, str) and isinstance(total_bytes, int | None):
                return validator, total_bytes
        return None, None

"""Files as stretches of bytes to be read from anywhere: one file, or several as a tar archive.

The archive is never written: its headers are made here, its contents stay where they are. The same
files give the same bytes, so that a download can be resumed.

Invariant: an open reading goes on to its end even if the files are deleted meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BLOCK_BYTES = 512
_END_BYTES = 2 * _BLOCK_BYTES
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes, or a whole file."""

    content: bytes | Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Document:
    """Stretches that follow each other."""

    stretches: Sequence[Stretch]

    @property
    def size_bytes(self) -> int:
        """Their length together."""
        return sum(stretch.size_bytes for stretch in self.stretches)

    @contextlib.contextmanager
    def opened(self, start: int, end: int) -> Iterator[Iterator[bytes]]:
        """Open the bytes from ``start`` up to ``end`` for reading, in chunks of up to a MiB.

        Raises:
            FileNotFoundError: A file is not there any more.
        """
        with contextlib.ExitStack() as stack:
            parts: list[tuple[bytes | int, int, int]] = []
            offset = 0
            for stretch in self.stretches:
                first, last = max(start - offset, 0), min(end - offset, stretch.size_bytes)
                offset += stretch.size_bytes
                if first >= last:
                    continue
                if isinstance(stretch.content, bytes):
                    parts.append((stretch.content, first, last))
                else:
                    descriptor = os.open(stretch.content, os.O_RDONLY)
                    stack.callback(os.close, descriptor)
                    parts.append((descriptor, first, last))
            yield _chunks(parts)

    def sha256(self) -> bytes:
        """Compute the digest of all bytes; takes as long as reading them.

        Raises:
            FileNotFoundError: A file is not there any more.
        """
        digest = hashlib.sha256()
        with self.opened(0, self.size_bytes) as chunks:
            for chunk in chunks:
                digest.update(chunk)
        return digest.digest()


def _chunks(parts: Sequence[tuple[bytes | int, int, int]]) -> Iterator[bytes]:
    for content, first, last in parts:
        if isinstance(content, bytes):
            yield content[first:last]
            continue
        position = first
        while position < last:
            chunk = os.pread(content, min(_CHUNK_BYTES, last - position), position)
            if not chunk:
                raise EOFError("a file became shorter while it was read")
            position += len(chunk)
            yield chunk


def one_file(path: Path) -> Document:
    """Make a document of a file.

    Raises:
        FileNotFoundError: There is none.
    """
    return Document([Stretch(path, path.stat().st_size)])


def tar_of(paths: Sequence[Path]) -> Document:
    """Make a document that is the tar archive of files, under their names alone.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    stretches: list[Stretch] = []
    for path in paths:
        status = path.stat()
        member = tarfile.TarInfo(path.name)
        member.size, member.mtime, member.mode = status.st_size, int(status.st_mtime), 0o644
        header = member.tobuf(tarfile.GNU_FORMAT)
        stretches += [Stretch(header, len(header)), Stretch(path, status.st_size)]
        padding = -status.st_size % _BLOCK_BYTES
        if padding:
            stretches.append(Stretch(bytes(padding), padding))
    return Document([*stretches, Stretch(bytes(_END_BYTES), _END_BYTES)])

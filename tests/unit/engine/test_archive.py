"""Files as stretches of bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.serving.download_answer import requested_range
from tinker_ray.engine.serving.rejection import RequestRejected
from tinker_ray.engine.store.archive import Document, Stretch, one_file, tar_of

if TYPE_CHECKING:
    from pathlib import Path


def read(document: Document, start: int = 0, end: int | None = None) -> bytes:
    with document.opened(start, document.size_bytes if end is None else end) as chunks:
        return b"".join(chunks)


def write(folder: Path, *sizes: int) -> list[Path]:
    paths = []
    for number, size in enumerate(sizes):
        path = folder / f"file{number}"
        path.write_bytes(bytes(index * 7 % 256 for index in range(size)))
        paths.append(path)
    return paths


def test_an_archive_holds_its_files_under_their_names(tmp_path: Path) -> None:
    paths = write(tmp_path, 0, 1, 511, 512, 3000)
    document = tar_of(paths)
    content = read(document)
    assert len(content) == document.size_bytes
    assert hashlib.sha256(content).digest() == document.sha256()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for path in paths:
            member = archive.extractfile(path.name)
            assert member is not None
            assert member.read() == path.read_bytes()
    assert read(tar_of(paths)) == content


def test_every_part_of_an_archive_is_read_alone(tmp_path: Path) -> None:
    document = tar_of(write(tmp_path, 300, 700))
    content = read(document)
    for start in range(0, len(content), 97):
        for end in range(start, len(content) + 1, 131):
            assert read(document, start, end) == content[start:end]


def test_an_open_reading_outlives_its_files(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 3 << 20)
    expected = path.read_bytes()
    with one_file(path).opened(0, 3 << 20) as chunks:
        path.unlink()
        assert b"".join(chunks) == expected


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1000)
    document = one_file(path)
    path.write_bytes(b"short")
    with pytest.raises(EOFError):
        read(document)


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tar_of([tmp_path / "x"])
    with pytest.raises(FileNotFoundError):
        read(Document([Stretch(tmp_path / "x", 3)]))


@given(size=st.integers(1, 1000), first=st.integers(0, 1200), last=st.integers(0, 1200))
def test_a_range_is_within_the_file_or_refused(size: int, first: int, last: int) -> None:
    header = f"bytes={first}-{last}"
    if first >= size and first <= last:
        with pytest.raises(RequestRejected) as caught:
            requested_range(header, size)
        assert caught.value.headers == {"Content-Range": f"bytes */{size}"}
    elif first > last:
        assert requested_range(header, size) is None
    else:
        assert requested_range(header, size) == (first, min(last + 1, size))

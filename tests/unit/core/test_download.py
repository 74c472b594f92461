from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tinker_ray import errors
from tinker_ray.core.download import Download, Downloaded, Progress
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Stream

pytestmark = pytest.mark.leaks("threads that write files belong to the event loop")

ARCHIVE = bytes(range(256)) * 40
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
ETAG = '"v1"'
URL = "https://storage/archive?signature=very-secret"


class Server:
    """Serves an archive, and breaks off or refuses when it is told to.

    ``breaks`` are the numbers of bytes after which the next answers end, ``refusals`` the statuses
    that come before them.
    """

    def __init__(self, *breaks: int, refusals: tuple[int, ...] = (), ranges: bool = True) -> None:
        self.archive = ARCHIVE
        self.etag: str | None = ETAG
        self.extra: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._breaks = list(breaks)
        self._refusals = list(refusals)
        self._ranges = ranges

    @asynccontextmanager
    async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        self.requests.append((url, dict(headers)))
        if self._refusals:
            yield Stream(self._refusals.pop(0), {}, self._chunks(b"no", None))
            return
        start = self._start(headers)
        about = {"content-length": str(len(self.archive) - start), **self.extra}
        if self.etag is not None:
            about["etag"] = self.etag
        limit = self._breaks.pop(0) if self._breaks else None
        if start > len(self.archive) or (start == len(self.archive) and start > 0):
            yield Stream(416, {"content-range": f"bytes */{len(self.archive)}"}, self._chunks())
            return
        if limit == 0:
            raise errors.APIConnectionError("refused")
        if start > 0:
            total = len(self.archive)
            about["content-range"] = f"bytes {start}-{total - 1}/{total}"
        content = self.archive[start:]
        yield Stream(206 if start > 0 else 200, about, self._chunks(content, limit))

    def _start(self, headers: Mapping[str, str]) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if found is None or not self._ranges:
            return 0
        return int(found[1]) if headers.get("If-Range", self.etag) == self.etag else 0

    async def _chunks(self, content: bytes = b"", limit: int | None = None) -> AsyncIterator[bytes]:
        for at in range(0, len(content), 1000):
            if limit is not None and at + 1000 > limit:
                yield content[at:limit]
                raise errors.APIConnectionError("broken")
            yield content[at : at + 1000]

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


class Addresses:
    """Says where the archive is, each time somewhere else."""

    def __init__(self) -> None:
        self.num_asked = 0

    async def __call__(self) -> str:
        self.num_asked += 1
        return f"{URL}&n={self.num_asked}"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "archive.tar"


async def fetch(
    server: Server,
    destination: Path,
    *,
    progress: Progress | None = None,
    find: Addresses | None = None,
    overwrite: bool = False,
) -> tuple[Downloaded, list[float]]:
    clock = VirtualClock()
    download = Download(server, clock, find or Addresses(), destination, progress)
    return await download.run(overwrite=overwrite), clock.slept


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def left_over(destination: Path) -> set[str]:
    return {path.name for path in destination.parent.iterdir()} - {
        destination.name,
        f"{destination.name}.sha256",
    }


async def test_an_archive_arrives_whole_with_its_checksum_beside_it(destination: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found, _ = await fetch(Server(), destination, progress=lambda *now: seen.append(now))
    assert Downloaded(destination, len(ARCHIVE), SHA256, verified=False) == found
    assert content_of(destination) == ARCHIVE
    checksum = destination.with_name("archive.tar.sha256")
    assert f"{SHA256}  archive.tar\n" == content_of(checksum).decode()
    assert (len(ARCHIVE), len(ARCHIVE)) == seen[-1]
    assert set() == left_over(destination)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-checksum-sha256": SHA256.upper()},
        {"digest": "MD5=xyz, sha-256=" + base64.b64encode(bytes.fromhex(SHA256)).decode()},
        {"repr-digest": "sha-256=:" + base64.b64encode(bytes.fromhex(SHA256)).decode() + ":"},
    ],
)
async def test_what_the_server_names_is_checked(destination: Path, headers: dict[str, str]) -> None:
    server = Server()
    server.extra = headers
    found, _ = await fetch(server, destination)
    assert found.verified


async def test_a_wrong_checksum_leaves_nothing_behind(destination: Path) -> None:
    server = Server()
    server.extra = {"x-checksum-sha256": "0" * 64}
    with pytest.raises(errors.APIResponseValidationError, match="damaged"):
        await fetch(server, destination)
    assert [] == list(destination.parent.iterdir())


@pytest.mark.parametrize("nonsense", ["sha-256=abc", "sha-256=!!", "", "md5=abc"])
async def test_a_checksum_that_cannot_be_read_is_none(destination: Path, nonsense: str) -> None:
    server = Server()
    server.extra = {"digest": nonsense, "x-checksum-sha256": "short"}
    found, _ = await fetch(server, destination)
    assert not found.verified


async def test_an_archive_that_is_shorter_than_announced_leaves_nothing_behind(
    destination: Path,
) -> None:
    server = Server()
    server.extra = {"content-length": str(len(ARCHIVE) + 1)}
    with pytest.raises(errors.APIResponseValidationError, match="10240 bytes instead of 10241"):
        await fetch(server, destination)
    assert set() == left_over(destination)


# --- breaking off ---------------------------------------------------------------------------------


async def test_a_broken_download_goes_on_where_it_broke_off(destination: Path) -> None:
    server = Server(2500, 1500)
    found, slept = await fetch(server, destination)
    assert SHA256 == found.sha256
    assert [None, "bytes=2500-", "bytes=4000-"] == server.ranges
    assert [] == slept  # what makes progress is no failure
    assert {ETAG} == {headers["If-Range"] for _, headers in server.requests[1:]}


async def test_a_server_that_is_silent_is_asked_again_as_patiently_as_for_any_read(
    destination: Path,
) -> None:
    server = Server(2500, *[0] * 12)
    found, slept = await fetch(server, destination)
    assert SHA256 == found.sha256
    assert 12 == len(slept)
    with pytest.raises(errors.APIConnectionError):
        await fetch(Server(*[0] * 500), destination.with_name("b"))


async def test_a_server_that_knows_no_ranges_is_read_from_the_beginning(destination: Path) -> None:
    server = Server(2500, ranges=False)
    found, _ = await fetch(server, destination)
    assert SHA256 == found.sha256
    assert 2 == len(server.requests)


async def test_another_process_goes_on_where_the_first_was_killed(destination: Path) -> None:
    with pytest.raises(errors.APIConnectionError):
        await fetch(Server(2500, *[0] * 500), destination)
    assert {"archive.tar.part", "archive.tar.part.json"} == left_over(destination)
    server = Server()
    found, _ = await fetch(server, destination)
    assert (SHA256, ["bytes=2500-"]) == (found.sha256, server.ranges)
    assert set() == left_over(destination)


async def test_what_was_there_of_another_archive_is_dropped(destination: Path) -> None:
    with pytest.raises(errors.APIConnectionError):
        await fetch(Server(2500, *[0] * 500), destination)
    server = Server()
    server.etag, server.archive = '"v2"', b"new" * 500
    found, _ = await fetch(server, destination)
    assert content_of(destination) == b"new" * 500
    assert 1500 == found.num_bytes


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_what_nobody_can_tell_to_be_the_same_is_not_gone_on_with(
    destination: Path, etag: str | None
) -> None:
    first = Server(2500, *[0] * 500)
    first.etag = etag
    with pytest.raises(errors.APIConnectionError):
        await fetch(first, destination)
    server = Server()
    await fetch(server, destination)
    assert [None] == server.ranges


@pytest.mark.parametrize(
    "notes", ["", "[]", '{"validator": 3}', '{"validator":"a","total_bytes":"b"}']
)
async def test_damaged_notes_start_over(destination: Path, notes: str) -> None:
    destination.with_name("archive.tar.part").write_bytes(b"rubbish")
    destination.with_name("archive.tar.part.json").write_text(notes)
    server = Server()
    found, _ = await fetch(server, destination)
    assert (SHA256, [None]) == (found.sha256, server.ranges)


async def test_an_archive_that_was_complete_but_not_put_in_place_is_not_fetched_again(
    destination: Path,
) -> None:
    destination.with_name("archive.tar.part").write_bytes(ARCHIVE)
    notes = f'{{"validator": "\\"v1\\"", "total_bytes": {len(ARCHIVE)}}}'
    destination.with_name("archive.tar.part.json").write_text(notes)
    found, _ = await fetch(Server(), destination)
    assert (SHA256, ARCHIVE) == (found.sha256, content_of(destination))


async def test_more_than_there_is_starts_over(destination: Path) -> None:
    destination.with_name("archive.tar.part").write_bytes(ARCHIVE + b"more")
    destination.with_name("archive.tar.part.json").write_text('{"validator": "\\"v1\\""}')
    found, _ = await fetch(Server(), destination)
    assert SHA256 == found.sha256


async def test_a_part_from_another_place_is_refused(destination: Path) -> None:
    class Confused(Server):
        @asynccontextmanager
        async def stream(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
            async with super().stream(url, headers) as answer:
                moved = {**answer.headers}
                if answer.status == 206:
                    moved["content-range"] = "bytes 7-10239/10240"
                yield Stream(answer.status, moved, answer.chunks)

    with pytest.raises(errors.APIResponseValidationError, match="not from 7"):
        await fetch(Confused(2500), destination)


# --- addresses ------------------------------------------------------------------------------------


async def test_an_address_that_has_expired_is_asked_for_anew(destination: Path) -> None:
    server, find = Server(2500), Addresses()
    original = server.stream

    @asynccontextmanager
    async def expiring(url: str, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
        if "n=1" in url and server.requests:
            server.requests.append((url, dict(headers)))
            yield Stream(403, {}, server._chunks(b"expired"))
            return
        async with original(url, headers) as answer:
            yield answer

    server.stream = expiring  # type: ignore[method-assign]  # the server changes its mind
    found, _ = await fetch(server, destination, find=find)
    assert (SHA256, 2) == (found.sha256, find.num_asked)


@pytest.mark.parametrize("refusal", [403, 404])
async def test_a_new_address_that_is_refused_is_an_error(destination: Path, refusal: int) -> None:
    with pytest.raises(errors.APIStatusError) as caught:
        await fetch(Server(refusals=(refusal,)), destination)
    assert (refusal, "no") == (caught.value.status_code, caught.value.body)
    assert "very-secret" not in str(caught.value)


async def test_a_file_that_is_there_is_replaced_only_if_that_is_wanted(destination: Path) -> None:
    put(destination, b"old")
    server = Server()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        await fetch(server, destination)
    assert [] == server.requests
    await fetch(server, destination, overwrite=True)
    assert ARCHIVE == content_of(destination)

"""Downloading a checkpoint's archive: piece by piece, resumed where it broke off, and checked.

What has arrived is kept beside the destination as ``NAME.part`` until it is complete, so that a
process that starts over goes on where the last one ended, provided that the archive is still the
same. Invariant: the destination appears whole and checked, or not at all; its SHA-256 stands beside
it in ``NAME.sha256``, as ``sha256sum --check`` reads it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tinker_ray.core.connection import credentials_for
from tinker_ray.core.partial_file import PartialFile
from tinker_ray.errors import APIConnectionError, APIResponseValidationError
from tinker_ray.transport.clock import MonotonicClock
from tinker_ray.transport.http import HttpTransport
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.retry import send
from tinker_ray.types import ParsedCheckpointTinkerPath
from tinker_ray.wire import status
from tinker_ray.wire.endpoint import Endpoint, Traffic
from tinker_ray.wire.integrity import range_start, range_total, sha256_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from tinker_ray.config import Settings
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.port import RegistryPort
    from tinker_ray.transport.auth import Credentials
    from tinker_ray.transport.clock import Clock
    from tinker_ray.transport.message import Stream, Streams
    from tinker_ray.types import CheckpointArchiveUrlResponse

WRITE_BYTES = 1024 * 1024
EXCERPT_BYTES = 2000
PIECE = Endpoint("GET", "archive", Traffic.REST_SUPPORT_REDIRECT)
"""How often and how long a piece that does not come is asked for: as with any other read."""


class Progress(Protocol):
    """Hears how far a download is."""

    def __call__(self, num_bytes: int, total_bytes: int | None) -> object:
        """Take in what has arrived, and of how much if that is known. Called on the event loop."""
        ...


@dataclass(frozen=True, slots=True)
class Downloaded:
    """An archive that has arrived.

    Attributes:
        path: Where it is.
        num_bytes: Its size.
        sha256: In hexadecimal.
        verified: Whether the server named the same; else only the size was checked.
    """

    path: Path
    num_bytes: int
    sha256: str
    verified: bool


async def download_checkpoint(  # noqa: PLR0913 - what is downloaded, whence and whither
    settings: Settings,
    flags: ServerFlags,
    registry: RegistryPort,
    tinker_path: str,
    destination: Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    transport: Callable[[Settings, Credentials], HttpTransport] = HttpTransport.from_settings,
) -> Downloaded:
    """Download the archive of a checkpoint into this process's file system.

    Args:
        settings: Of this process: an archive that is at the service itself needs its key.
        flags: What the service wants.
        registry: Tells where the archive is.
        tinker_path: The checkpoint.
        destination: The file; its folder has to exist.
        progress: Hears how far it is.
        overwrite: Replace a file that is there.
        transport: Opens the connections.

    Raises:
        ValueError: The path has the wrong shape.
        FileExistsError: There is such a file.
        APIStatusError: The service or the archive's server refused.
        APIConnectionError: There was no answer for as long as the repetitions last.
        APIResponseValidationError: What arrived is not what was announced.
    """
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
    where = {"run_id": parsed.training_run_id, "checkpoint_id": parsed.checkpoint_id}

    async def find() -> str:
        found: CheckpointArchiveUrlResponse = await registry.call(
            "get_checkpoint_archive_url", where
        )
        return found.url

    clock = MonotonicClock()
    streams = transport(settings, credentials_for(settings, flags, clock, transport))
    try:
        download = Download(streams, clock, find, destination, progress)
        return await download.run(overwrite=overwrite)
    finally:
        await streams.aclose()


class Download:
    """One download. To the retry loop it is a transport, whose attempts fetch what is missing.

    Args:
        streams: Gets what is at an address.
        clock: Time between repetitions.
        find: Says where the archive is; asked again when that address has expired.
        destination: The file.
        progress: Hears how far it is.
    """

    def __init__(
        self,
        streams: Streams,
        clock: Clock,
        find: Callable[[], Awaitable[str]],
        destination: Path,
        progress: Progress | None = None,
    ) -> None:
        self._streams = streams
        self._clock = clock
        self._find = find
        self._destination = destination
        self._progress = progress
        self._url: str | None = None
        self._part = PartialFile(destination)
        self._sha256: str | None = None
        self._ended = False

    async def run(self, *, overwrite: bool = False) -> Downloaded:
        """Fetch all that is missing, and put the file in its place.

        Raises:
            FileExistsError: There is such a file.
            APIStatusError: The service or the archive's server refused.
            APIConnectionError: There was no answer for as long as the repetitions last.
            APIResponseValidationError: What arrived is not what was announced.
        """
        if self._destination.exists() and not overwrite:
            message = f"{self._destination} exists: pass overwrite=True to replace it"
            raise FileExistsError(message)
        await asyncio.to_thread(self._part.open)
        try:
            while not self._ended:
                # Each piece has the patience of a request: a break after progress begins a new one.
                await send(self, Request(PIECE, PIECE.path), self._clock)
            return await asyncio.to_thread(self._finish)
        finally:
            self._part.close()

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002 - the protocol's
        """Fetch what is missing, or as much of it as comes.

        Raises:
            APIConnectionError: Nothing has come.
            APIStatusError: The service does not say where the archive is.
            APIResponseValidationError: Something else has come.
        """
        before = self._part.num_bytes
        is_new = self._url is None
        if self._url is None:
            self._url = await self._find()
        try:
            async with self._streams.stream(self._url, self._headers()) as answer:
                response = await self._take(answer)
        except APIConnectionError:
            if self._part.num_bytes > before:
                return Response(status.PARTIAL_CONTENT)
            raise
        if not status.is_success(response.status) and not is_new:
            self._url = None  # it may have expired
            message = f"the archive's server answers {response.status} at the old address"
            raise APIConnectionError(message)
        return response

    async def aclose(self) -> None:
        """Do nothing: the connections are somebody else's."""

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._part.num_bytes > 0:
            headers["Range"] = f"bytes={self._part.num_bytes}-"
            if self._part.validator:
                headers["If-Range"] = self._part.validator
        return headers

    async def _take(self, answer: Stream) -> Response:
        if answer.status == status.RANGE_NOT_SATISFIABLE:
            return await self._on_unsatisfiable(answer)
        if not status.is_success(answer.status):
            return Response(answer.status, answer.headers, await _excerpt(answer))
        if answer.status == status.PARTIAL_CONTENT:
            self._check_place(answer.headers)
        else:
            await asyncio.to_thread(self._part.restart)
        self._part.describe(_validator(answer.headers), _total(answer))
        self._sha256 = sha256_of(answer.headers) or self._sha256
        await self._write(answer)
        self._ended = True
        return Response(answer.status)

    async def _on_unsatisfiable(self, answer: Stream) -> Response:
        """Judge a server that has nothing beyond what is here: that is all, or it is not of it."""
        if range_total(answer.headers) == self._part.num_bytes:
            self._ended = True
            return Response(status.PARTIAL_CONTENT)
        await asyncio.to_thread(self._part.restart)
        raise APIConnectionError("the archive has changed: it is fetched from its beginning")

    def _check_place(self, headers: Mapping[str, str]) -> None:
        start = range_start(headers)
        if start != self._part.num_bytes:
            message = f"bytes from {self._part.num_bytes} on were asked for, not from {start}"
            raise APIResponseValidationError(message, status_code=status.PARTIAL_CONTENT)

    async def _write(self, answer: Stream) -> None:
        pending = bytearray()
        try:
            async for chunk in answer.chunks:
                pending += chunk
                if len(pending) >= WRITE_BYTES:
                    await self._append(pending)
        finally:
            await self._append(pending)

    async def _append(self, pending: bytearray) -> None:
        data = bytes(pending)
        pending.clear()
        if data:
            await asyncio.to_thread(self._part.append, data)
            if self._progress is not None:
                self._progress(self._part.num_bytes, self._part.total_bytes)

    def _finish(self) -> Downloaded:
        part = self._part
        sha256 = part.sha256
        if part.total_bytes is not None and part.num_bytes != part.total_bytes:
            what = f"{part.num_bytes} bytes instead of {part.total_bytes}"
        elif self._sha256 is not None and self._sha256 != sha256:
            what = f"SHA-256 {sha256} instead of {self._sha256}"
        else:
            part.complete()
            verified = self._sha256 is not None
            return Downloaded(self._destination, part.num_bytes, sha256, verified)
        part.discard()
        message = f"the archive for {self._destination} arrived damaged, with {what}: try again"
        raise APIResponseValidationError(message)


async def _excerpt(answer: Stream) -> bytes:
    content = b""
    async for chunk in answer.chunks:
        content += chunk
        if len(content) >= EXCERPT_BYTES:
            break
    return content[:EXCERPT_BYTES]


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return what tells whether the archive is still the same; a weak tag does not."""
    etag = headers.get("etag", "")
    strong = etag if etag and not etag.startswith("W/") else None
    return strong or headers.get("last-modified")


def _total(answer: Stream) -> int | None:
    if answer.status == status.PARTIAL_CONTENT:
        return range_total(answer.headers)
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None

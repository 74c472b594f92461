"""A file as an HTTP answer, whole or in part, with what a client needs to resume and verify it.

Source: RFC 9110, sections 13 and 14 (one range at a time; several are answered with the whole).
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING

from starlette.responses import Response

from tinker_ray.engine.serving.answer import json_answer
from tinker_ray.engine.serving.rejection import RequestRejected, not_found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from tinker_ray.engine.serving.downloads import Download, Downloads

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_GONE = "the file is gone: ask for a new link"
_PARTIAL = 206
_OK = 200


def requested_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Read a ``Range`` header; None for the whole.

    Returns:
        The first byte and the one after the last.

    Raises:
        RequestRejected: The range lies behind the end (416).
    """
    match = _RANGE.match((header or "").replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size_bytes - int(last), 0), size_bytes
    else:
        start, end = int(first), min(int(last or size_bytes - 1) + 1, size_bytes)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RequestRejected(
            f"has only {size_bytes} bytes",
            field="Range",
            status_code=416,
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, end


class DownloadAnswer(Response):
    """Sends the bytes of a document from ``start`` up to ``end``."""

    def __init__(self, download: Download, digest: bytes, bounds: tuple[int, int] | None) -> None:
        size_bytes = download.document.size_bytes
        self._document = download.document
        self._bounds = bounds or (0, size_bytes)
        start, end = self._bounds
        headers = {
            "accept-ranges": "bytes",
            "content-length": str(end - start),
            "content-disposition": f'attachment; filename="{download.file_name}"',
            "digest": f"sha-256={base64.b64encode(digest).decode()}",
            "x-checksum-sha256": digest.hex(),
            "etag": entity_tag(digest),
        }
        if bounds is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size_bytes}"
        status_code = _OK if bounds is None else _PARTIAL
        super().__init__(None, status_code, headers, download.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            with self._document.opened(*self._bounds) as chunks:
                await self._send(scope, send, chunks)
        except FileNotFoundError:  # deleted a moment ago; nothing was sent
            await json_answer({"detail": _GONE}, 404)(scope, receive, send)

    async def _send(self, scope: Scope, send: Send, chunks: Iterator[bytes]) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def entity_tag(digest: bytes) -> str:
    """Return the strong validator of bytes with this digest."""
    return f'"{digest.hex()}"'


async def answer_download(request: Request, downloads: Downloads, token: str) -> Response:
    """Answer for a signed link.

    Raises:
        RequestRejected: The link does not work, or the range cannot be satisfied.
    """
    download = downloads.open(token)
    try:
        digest = await asyncio.to_thread(downloads.sha256, download)
        if_range = request.headers.get("if-range")
        header = request.headers.get("range")
        if if_range is not None and if_range != entity_tag(digest):
            header = None
        bounds = requested_range(header, download.document.size_bytes)
        return DownloadAnswer(download, digest, bounds)
    except FileNotFoundError as error:
        raise not_found(_GONE, "token") from error

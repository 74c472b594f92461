"""Files that are handed out by signed links, without a key: checkpoints, exports, traces.

A link names one file of one version of one checkpoint, for one purpose, until a time. Knows nothing
of HTTP beyond the path of its endpoint.

Invariant: a link stops working when its time is over, or what it names is deleted, replaced or
expired.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.engine.access.signature import SignatureError
from tinker_ray.engine.model.adapter_file import PEFT_FILES
from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.store.archive import one_file, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tinker_ray.engine.access.signature import Signer
    from tinker_ray.engine.store.archive import Document
    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.store.row import CheckpointRow

ARCHIVE_LIFETIME_S = 900.0
FILE_LIFETIME_S = 3600.0
TRACE_LIFETIME_S = 3600.0
_FORBIDDEN = 403
_MAX_DIGESTS = 1024


@dataclass(frozen=True, slots=True)
class Link:
    """A signed link: the part of the URL after the endpoint's path, and until when it works."""

    token: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Download:
    """What a link stands for."""

    document: Document
    file_name: str
    media_type: str
    version: str


class Downloads:
    """The links of one data folder.

    Args:
        folder: The data folder.
        ledger: Where the checkpoints are recorded.
        signer: Signs the links.
        now: The wall clock.

    Attributes:
        exports: The folder of files that are made to be downloaded and can be made again.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, signer: Signer, now: Callable[[], float] = time.time
    ) -> None:
        self.exports = folder / "exports"
        self._ledger = ledger
        self._signer = signer
        self._now = now
        self._digests: OrderedDict[str, bytes] = OrderedDict()

    def archive_link(self, row: CheckpointRow) -> Link:
        """Link to the tar archive of a checkpoint, as ``peft`` loads it."""
        return self._link("archive", ARCHIVE_LIFETIME_S, row, "")

    def file_links(self, row: CheckpointRow) -> dict[str, Link]:
        """Link to each file of a checkpoint, by name.

        Raises:
            RequestRejected: The folder is not there.
        """
        if not row.directory.is_dir():
            raise not_found(f"the files of {row.tinker_path} are gone", "checkpoint_id")
        names = sorted(path.name for path in row.directory.iterdir())
        return {name: self._link("file", FILE_LIFETIME_S, row, name) for name in names}

    def trace_link(self, file_name: str) -> Link:
        """Link to a file of the exports folder."""
        expires_at = self._now() + TRACE_LIFETIME_S
        return Link(self._signed("trace", {"file": file_name}, expires_at), expires_at)

    def _link(self, purpose: str, lifetime_s: float, row: CheckpointRow, name: str) -> Link:
        expires_at = self._now() + lifetime_s
        claims = {"path": row.tinker_path, "version": row.directory.name, "file": name}
        return Link(self._signed(purpose, claims, expires_at), expires_at)

    def _signed(self, purpose: str, claims: dict[str, str], expires_at: float) -> str:
        return f"{purpose}.{self._signer.sign(purpose, claims, expires_at)}"

    def open(self, token: str) -> Download:
        """Find what a link stands for.

        Raises:
            RequestRejected: It is none of ours or too old (403), or what it names is gone (404).
        """
        purpose, _, signed = token.partition(".")
        try:
            claims = self._signer.verify(purpose, signed, self._now())
        except SignatureError as error:
            message = f"the link {error}"
            raise RequestRejected(message, field="token", status_code=_FORBIDDEN) from error
        try:
            if purpose == "trace":
                return self._trace(claims["file"])
            return self._checkpoint(claims["path"], claims["version"], claims["file"])
        except FileNotFoundError as error:
            raise not_found("the file is gone: ask for a new link", "token") from error

    def _trace(self, file_name: str) -> Download:
        document = one_file(self.exports / file_name)
        return Download(document, file_name, "application/json", file_name)

    def _checkpoint(self, tinker_path: str, version: str, file_name: str) -> Download:
        row = self._ledger.checkpoints.get(tinker_path)
        expired = row is not None and row.expires_at is not None and row.expires_at <= self._now()
        if row is None or expired or row.directory.name != version:
            raise not_found("the checkpoint was deleted or replaced", "token")
        if file_name:
            document = one_file(row.directory / file_name)
            return Download(document, file_name, "application/octet-stream", version)
        run = row.run_id.replace(":", "-")
        archive_name = f"{run}-{row.checkpoint_id.replace('/', '-')}.tar"
        document = tar_of([row.directory / name for name in PEFT_FILES])
        return Download(document, archive_name, "application/x-tar", version)

    def sha256(self, download: Download) -> bytes:
        """Compute a digest, or give it again. Takes as long as reading the files; any thread.

        Raises:
            FileNotFoundError: A file is not there any more.
        """
        key = f"{download.version}/{download.file_name}"
        if (known := self._digests.get(key)) is not None:
            return known
        digest = self._digests[key] = download.document.sha256()
        while len(self._digests) > _MAX_DIGESTS:
            self._digests.popitem(last=False)
        return digest

    def sweep(self) -> None:
        """Delete exports that no link leads to any more."""
        if not self.exports.is_dir():
            return
        oldest = self._now() - TRACE_LIFETIME_S - 60
        for path in self.exports.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

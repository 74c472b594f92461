"""Where weights are on disk, what they are called, and who may read them.

Folders get names of their own, so that a checkpoint that is replaced stays whole for the sampling
sessions that were opened on it; copies share the folder of what they were copied from. Knows
nothing of tensors; lives on one event loop.

Invariants: a ``tinker://`` path resolves only after its folder is complete, and until it expires; a
folder stays as long as a checkpoint, or a sampling session of its own, is in it.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.engine.serving.validate import checkpoint_name
from tinker_ray.engine.store.row import CheckpointRow
from tinker_ray.types import ParsedCheckpointTinkerPath

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.types import CheckpointType

Segment = Literal["weights", "sampler_weights", "external_weights"]

CHECKPOINT_TYPES: dict[Segment, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that a save will fill."""

    run_id: str
    segment: Segment
    name: str
    directory: Path
    owner: str

    @property
    def checkpoint_id(self) -> str:
        """The checkpoint's id within its run."""
        return f"{self.segment}/{self.name}"

    @property
    def tinker_path(self) -> str:
        """The checkpoint's path."""
        return f"tinker://{self.run_id}/{self.checkpoint_id}"


class CheckpointStore:
    """The weights of one data folder.

    Args:
        ledger: Where they are recorded.
        folder: The data folder.
        now: The wall clock.
        dropped: Told each folder that is about to be removed.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
        dropped: Callable[[Path], object] = id,
    ) -> None:
        self._ledger = ledger
        self._folder = folder / "checkpoints"
        self._now = now
        self._dropped = dropped
        self._reserved: Counter[str] = Counter()
        self._removals: set[asyncio.Future[None]] = set()

    def resolve(self, tinker_path: str, readers: Collection[str], *, field: str) -> CheckpointRow:
        """Look up a checkpoint that is public or belongs to one of the readers.

        Raises:
            RequestRejected: The path has another form, there is no such checkpoint for these
                readers, or its time to live is over.
        """
        row = self._find(tinker_path, field)
        if row is None or not (row.public or row.owner in readers):
            raise not_found(f"there is no checkpoint {tinker_path!r}", field)
        return row

    def own(self, tinker_path: str, owner: str, *, field: str) -> CheckpointRow:
        """Look up a checkpoint that its owner wants to change.

        Raises:
            RequestRejected: The path has another form, the owner has no such checkpoint, or its
                time to live is over.
        """
        row = self._find(tinker_path, field)
        if row is None or row.owner != owner:
            raise not_found(f"there is no checkpoint {tinker_path!r} of yours", field)
        return row

    def _find(self, tinker_path: str, field: str) -> CheckpointRow | None:
        try:
            ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        except ValueError as error:
            raise RequestRejected(str(error), field=field) from error
        row = self._ledger.checkpoints.get(tinker_path)
        return None if row is None or self.is_expired(row) else row

    def is_expired(self, row: CheckpointRow) -> bool:
        """Whether a checkpoint's time to live is over."""
        return row.expires_at is not None and row.expires_at <= self._now()

    def is_expected(self, tinker_path: str) -> bool:
        """Whether a save of this path was accepted and is not done yet."""
        return self._reserved[tinker_path] > 0

    def reserve(
        self, run_id: str, segment: Segment, name: str, *, owner: str, overwrite: bool = False
    ) -> Slot:
        """Set a name aside for a save.

        Raises:
            RequestRejected: The name is taken or not allowed.
        """
        directory = self._directory(run_id, segment, checkpoint_name(name))
        slot = Slot(run_id, segment, name, directory, owner)
        row = self._ledger.checkpoints.get(slot.tinker_path)
        exists = row is not None and not self.is_expired(row)
        if (exists or self.is_expected(slot.tinker_path)) and not overwrite:
            hint = ", or save with overwrite" if segment == "weights" else ""
            message = f"{slot.tinker_path} exists: choose another name{hint}"
            raise RequestRejected(message, field="path")
        self._reserved[slot.tinker_path] += 1
        return slot

    def release(self, slot: Slot) -> None:
        """Give a reservation back, after the save."""
        self._reserved[slot.tinker_path] -= 1
        if self._reserved[slot.tinker_path] <= 0:
            del self._reserved[slot.tinker_path]

    def fill(
        self,
        slot: Slot,
        size_bytes: int,
        *,
        ttl_s: int | None = None,
        user_metadata: dict[str, str] | None = None,
    ) -> CheckpointRow:
        """Record a save, in place of the one before it of the same path."""
        before = self._ledger.checkpoints.get(slot.tinker_path)
        now = self._now()
        row = CheckpointRow(
            tinker_path=slot.tinker_path,
            run_id=slot.run_id,
            checkpoint_id=slot.checkpoint_id,
            checkpoint_type=CHECKPOINT_TYPES[slot.segment],
            directory=slot.directory,
            size_bytes=size_bytes,
            created_at=now,
            user_metadata=user_metadata,
            expires_at=None if ttl_s is None else now + ttl_s,
            owner=slot.owner,
        )
        self._ledger.checkpoints.put(row)
        if before is not None and not self._ledger.samplers.uses(before.directory):
            self._remove_unused(before.directory)
        return row

    def copy(
        self, source: CheckpointRow, run_id: str, *, owner: str, ttl_s: int | None
    ) -> CheckpointRow:
        """Record a checkpoint of the same kind, name and bytes in another run."""
        now = self._now()
        row = CheckpointRow(
            tinker_path=f"tinker://{run_id}/{source.checkpoint_id}",
            run_id=run_id,
            checkpoint_id=source.checkpoint_id,
            checkpoint_type=source.checkpoint_type,
            directory=source.directory,
            size_bytes=source.size_bytes,
            created_at=now,
            user_metadata=source.user_metadata,
            expires_at=None if ttl_s is None else now + ttl_s,
            owner=owner,
        )
        self._ledger.checkpoints.put(row)
        return row

    def set_ttl(self, row: CheckpointRow, ttl_s: int | None) -> None:
        """Let a checkpoint live for so long from now, or for ever."""
        expires_at = None if ttl_s is None else self._now() + ttl_s
        self._ledger.checkpoints.set_expiry(row.tinker_path, expires_at)

    def delete(self, row: CheckpointRow) -> None:
        """Forget a checkpoint; remove its folder unless a copy shares it."""
        self._ledger.checkpoints.delete(row.tinker_path, self._now())
        self._remove_unused(row.directory)

    def delete_expired(self) -> None:
        """Delete the checkpoints whose time to live is over."""
        for row in self._ledger.checkpoints.expired(self._now()):
            self.delete(row)

    def ephemeral_directory(self, run_id: str) -> Path:
        """Name a folder for weights that only sampling sessions refer to."""
        return self._directory(run_id, "ephemeral", "snapshot")

    def remove(self, directory: Path) -> None:
        """Remove a folder in a thread."""
        self._dropped(directory)
        removal = asyncio.get_running_loop().run_in_executor(
            None, lambda: shutil.rmtree(directory, ignore_errors=True)
        )
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    def remove_orphans(self) -> None:
        """Remove what a process that was killed left half done; nothing may be saving."""
        known = self._ledger.checkpoints.directories() | self._ledger.samplers.directories()
        for directory in self._folder.glob("*/*/*"):
            if directory not in known:
                shutil.rmtree(directory, ignore_errors=True)

    def _remove_unused(self, directory: Path) -> None:
        if not self._ledger.checkpoints.uses(directory):
            self.remove(directory)

    def _directory(self, run_id: str, segment: str, name: str) -> Path:
        return self._folder / run_id.replace(":", "-") / segment / f"{name}-{secrets.token_hex(4)}"

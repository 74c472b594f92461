"""Where weights are on disk, and what they are called.

Folders get names of their own, so that a checkpoint that is replaced stays whole for the sampling
sessions that were opened on it. Knows nothing of tensors; lives on one event loop.

Invariant: a ``tinker://`` path resolves only after its folder is complete.
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tinker_ray.engine.store.ledger import Ledger

Segment = Literal["weights", "sampler_weights"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that a save will fill."""

    run_id: str
    segment: Segment
    name: str
    directory: Path

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
    """

    def __init__(
        self, ledger: Ledger, folder: Path, *, now: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._now = now
        self._reserved: Counter[str] = Counter()
        self._removals: set[asyncio.Future[None]] = set()

    def resolve(self, tinker_path: str, *, field: str) -> CheckpointRow:
        """Look a checkpoint up.

        Raises:
            RequestRejected: There is none, or its time to live is over.
        """
        row = self._ledger.checkpoint(tinker_path)
        if row is None or (row.expires_at is not None and row.expires_at <= self._now()):
            raise not_found(f"there is no checkpoint {tinker_path!r}", field)
        return row

    def is_expected(self, tinker_path: str) -> bool:
        """Whether a save of this path was accepted and is not done yet."""
        return self._reserved[tinker_path] > 0

    def reserve(self, run_id: str, segment: Segment, name: str, *, overwrite: bool = False) -> Slot:
        """Set a name aside for a save.

        Raises:
            RequestRejected: The name is taken or not allowed.
        """
        directory = self._directory(run_id, segment, checkpoint_name(name))
        slot = Slot(run_id, segment, name, directory)
        row = self._ledger.checkpoint(slot.tinker_path)
        taken = row is not None or self.is_expected(slot.tinker_path)
        if taken and not overwrite:
            message = f"{slot.tinker_path} exists: choose another name, or save with overwrite"
            if segment == "sampler_weights":
                message = f"{slot.tinker_path} exists: choose another name"
            raise RequestRejected(message, field="path")
        self._reserved[slot.tinker_path] += 1
        return slot

    def release(self, slot: Slot) -> None:
        """Give a reservation back, after the save."""
        self._reserved[slot.tinker_path] -= 1

    def fill(
        self,
        slot: Slot,
        size_bytes: int,
        *,
        ttl_s: int | None = None,
        user_metadata: dict[str, str] | None = None,
    ) -> None:
        """Record a save, in place of the one before it of the same path."""
        before = self._ledger.checkpoint(slot.tinker_path)
        now = self._now()
        row = CheckpointRow(
            tinker_path=slot.tinker_path,
            run_id=slot.run_id,
            checkpoint_id=slot.checkpoint_id,
            checkpoint_type="training" if slot.segment == "weights" else "sampler",
            directory=slot.directory,
            size_bytes=size_bytes,
            created_at=now,
            user_metadata=user_metadata,
            expires_at=None if ttl_s is None else now + ttl_s,
        )
        self._ledger.put_checkpoint(row)
        if before is not None and not self._ledger.is_sampled(before.directory):
            self.remove(before.directory)

    def delete(self, row: CheckpointRow) -> None:
        """Forget a checkpoint and remove its folder."""
        self._ledger.delete_checkpoint(row.tinker_path)
        self.remove(row.directory)

    def delete_expired(self) -> None:
        """Delete the checkpoints whose time to live is over."""
        for row in self._ledger.expired_checkpoints(self._now()):
            self.delete(row)

    def ephemeral_directory(self, run_id: str) -> Path:
        """Name a folder for weights that only a sampling session refers to."""
        return self._directory(run_id, "ephemeral", "snapshot")

    def remove(self, directory: Path) -> None:
        """Remove a folder in a thread."""
        removal = asyncio.get_running_loop().run_in_executor(
            None, lambda: shutil.rmtree(directory, ignore_errors=True)
        )
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    def _directory(self, run_id: str, segment: str, name: str) -> Path:
        run = self._folder / "checkpoints" / run_id.replace(":", "-")
        return run / segment / f"{name}-{secrets.token_hex(4)}"

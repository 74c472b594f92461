"""What one engine process is made of: its data folder, its base models and the work on them.

Made inside a running event loop, on which everything here lives. Knows nothing of HTTP.

Invariant: one process at a time works on a data folder (its starter holds the folder's lock).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.promise import PromiseStore
from tinker_ray.engine.serving.rejection import gone, not_found
from tinker_ray.engine.serving.sampling import Sampling
from tinker_ray.engine.serving.training_runs import TrainingRuns
from tinker_ray.engine.serving.validate import LossSources
from tinker_ray.engine.shelf import Shelf
from tinker_ray.engine.store.checkpoint_store import CheckpointStore
from tinker_ray.engine.store.ledger import Ledger
from tinker_ray.engine.training.recorded_samples import RecordedSamples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.store.row import SessionRow
    from tinker_ray.engine.training.custom_loss import CustomLoss

_FINISHED_SESSION_KEPT_S = 3600.0
_SILENT_SESSION_KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How an engine behaves.

    Attributes:
        max_queued_sequences: Sequences that may wait in one base model's batch before 429.
        gap_timeout_s: How long a training operation waits for a missing one before it.
        long_poll_s: How long a request for a result waits for it.
        strict_losses: Whether to refuse losses whose formula is our own, because the service's is
            not public.
    """

    max_queued_sequences: int = 4096
    gap_timeout_s: float = 120.0
    long_poll_s: float = 25.0
    strict_losses: bool = False


def _no_custom_loss(loss_id: str) -> CustomLoss:
    raise not_found(f"there is no loss {loss_id!r}", "loss_fn_config.loss_id")


class Host:
    """An engine at work.

    Attributes:
        settings: How it behaves.
        ledger: What outlives it.
        promises: The operations that it accepted.
        checkpoints: The weights on disk.
        shelf: The base models.
        runs: The models in training.
        sampling: The samples.
        recorded: The samples that losses may refer to.
    """

    def __init__(
        self, models: Sequence[ServedModel], data: Path, settings: HostSettings | None = None
    ) -> None:
        """Open a data folder, and record what died with the process before this one.

        Raises:
            EngineError: The ledger in the folder cannot be used.
        """
        self.settings = settings or HostSettings()
        self.ledger = Ledger(data)
        self.ledger.recover()
        self.promises = PromiseStore(self.ledger.journal)
        self.checkpoints = CheckpointStore(self.ledger, data)
        self.shelf = Shelf(models)
        self.runs = TrainingRuns(
            self.ledger, self.promises, gap_timeout_s=self.settings.gap_timeout_s
        )
        self.recorded = RecordedSamples()
        self.sampling = Sampling(
            self.ledger,
            self.checkpoints,
            self.promises,
            self.shelf,
            max_queued_sequences=self.settings.max_queued_sequences,
        )
        self.sweep()

    def loss_sources(self, session_id: str) -> LossSources:
        """Say where the losses of a session's requests find what they refer to."""
        return LossSources(
            find_sample=lambda name: self.recorded.find(session_id, name),
            find_custom_loss=_no_custom_loss,
            strict=self.settings.strict_losses,
        )

    def session(self, session_id: str, *, open_only: bool = True) -> SessionRow:
        """Look a session up.

        Raises:
            RequestRejected: There is none (404), or it was finished (410).
        """
        row = self.ledger.session(session_id)
        if row is None:
            raise not_found(f"there is no session {session_id!r}", "session_id")
        if open_only and row.finished_at is not None:
            raise gone(f"the session {session_id!r} was finished", "session_id")
        return row

    def sweep(self) -> None:
        """Delete what nobody can ask for any more."""
        self.checkpoints.delete_expired()
        now = time.time()
        for directory in self.ledger.ended_snapshots(
            finished_before=now - _FINISHED_SESSION_KEPT_S,
            seen_before=now - _SILENT_SESSION_KEPT_S,
        ):
            if directory.exists():
                self.sampling.snapshots.drop(directory)
                self.checkpoints.remove(directory)

    def release(self) -> None:
        """Let go of every request that waits for a result. Idempotent."""
        self.promises.release()

    async def close(self, timeout_s: float = 2.0) -> bool:
        """End the work and close the ledger; live weights that were not saved are lost.

        Returns:
            Whether the work ended in time.
        """
        self.release()
        self.runs.close()
        closing = (asyncio.to_thread(served.close, timeout_s) for served in self.shelf)
        ended = await asyncio.gather(*closing)
        self.ledger.close()
        return all(ended)

"""What one engine process is made of: its data folder, its base models and the work on them.

Made inside a running event loop, on which everything here lives. Knows nothing of HTTP.

Invariant: one process at a time works on a data folder (its starter holds the folder's lock).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tinker_ray.engine.access.admission import Admission
from tinker_ray.engine.access.key_ring import KeyRing
from tinker_ray.engine.access.secret_file import load_secret
from tinker_ray.engine.access.signature import Signer
from tinker_ray.engine.access.token import TokenMint
from tinker_ray.engine.serving.audit import Audit
from tinker_ray.engine.serving.custom_losses import CustomLosses
from tinker_ray.engine.serving.downloads import Downloads
from tinker_ray.engine.serving.promise import PromiseStore
from tinker_ray.engine.serving.rejection import gone, not_found
from tinker_ray.engine.serving.sampling import Sampling
from tinker_ray.engine.serving.telemetry_file import TelemetryFile
from tinker_ray.engine.serving.trace_file import TraceFiles
from tinker_ray.engine.serving.training_runs import TrainingRuns
from tinker_ray.engine.serving.validate import LossSources
from tinker_ray.engine.settings import HostSettings
from tinker_ray.engine.shelf import Shelf
from tinker_ray.engine.store.checkpoint_store import CheckpointStore
from tinker_ray.engine.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tinker_ray.engine.access.api_key import ApiKey
    from tinker_ray.engine.served_model import ServedModel
    from tinker_ray.engine.store.row import SessionRow

_FINISHED_SESSION_KEPT_S = 3600.0
_SILENT_SESSION_KEPT_S = 7 * 24 * 3600.0
_SWEPT_EVERY_S = 30.0


class Host:
    """An engine at work.

    Attributes:
        settings: How it behaves.
        now: The wall clock.
        ledger: What outlives it.
        promises: The operations that it accepted.
        checkpoints: The weights on disk.
        shelf: The base models.
        runs: The models in training.
        losses: The custom losses.
        sampling: The samples.
        admission: Who is let in.
        downloads: The files that it hands out by signed links.
        audit: The log of what was done to what it keeps.
        telemetry: Where clients' reports go.
        traces: What sessions did, as files.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        data: Path,
        settings: HostSettings | None = None,
        *,
        keys: Sequence[ApiKey] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open a data folder, and record what died with the process before this one.

        Args:
            models: The base models to serve.
            data: The data folder.
            settings: How the engine behaves.
            keys: The API keys that are let in; none for an engine that asks for none.
            now: The wall clock.

        Raises:
            EngineError: The ledger in the folder cannot be used.
        """
        self.settings = settings or HostSettings()
        self.now = now
        self.ledger = Ledger(data)
        self.ledger.recover()
        signer = Signer(load_secret(data))
        ring = KeyRing(keys, self.ledger.keys, now())
        self.admission = Admission(ring, TokenMint(signer.derive("token")), now)
        self.downloads = Downloads(data, self.ledger, signer, now)
        self.audit = Audit(self.ledger.audit, now)
        self.telemetry = TelemetryFile(data / "telemetry.jsonl")
        self.traces = TraceFiles(self.ledger, self.downloads.exports)
        self.promises = PromiseStore(self.ledger.journal)
        self.shelf = Shelf(models)
        self.checkpoints = CheckpointStore(
            self.ledger, data, now=now, dropped=self._forget_snapshot
        )
        self.checkpoints.remove_orphans()
        self.runs = TrainingRuns(
            self.ledger, self.promises, gap_timeout_s=self.settings.gap_timeout_s
        )
        self.losses = CustomLosses(self.ledger)
        self.sampling = Sampling(
            self.ledger,
            self.checkpoints,
            self.promises,
            self.shelf,
            max_queued_sequences=self.settings.max_queued_sequences,
            keeps_pending=self.settings.flags.sample_use_retrieve_futures,
        )
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_and_go_on()

    def loss_sources(self, session_id: str) -> LossSources:
        """Say where the losses of a session's requests find what they refer to."""
        return LossSources(
            find_sample=lambda name: self.sampling.recorded.find(session_id, name),
            find_custom_loss=lambda loss_id: self.losses.find(loss_id, session_id),
            strict=self.settings.strict_losses,
        )

    def _forget_snapshot(self, directory: Path) -> None:
        self.sampling.snapshots.drop(directory)

    def session(self, session_id: str, owner: str, *, open_only: bool = True) -> SessionRow:
        """Look a session up.

        Raises:
            RequestRejected: The owner has none of this name (404), or it was finished (410).
        """
        row = self.ledger.sessions.get(session_id)
        if row is None or row.owner != owner:
            raise not_found(f"there is no session {session_id!r}", "session_id")
        if open_only and row.finished_at is not None:
            raise gone(f"the session {session_id!r} was finished", "session_id")
        return row

    def sweep(self) -> None:
        """Delete what nobody can ask for any more."""
        self.checkpoints.delete_expired()
        now = self.now()
        finished_before = now - _FINISHED_SESSION_KEPT_S
        seen_before = now - _SILENT_SESSION_KEPT_S
        for directory in self.ledger.samplers.sweep(
            finished_before=finished_before, seen_before=seen_before
        ):
            used = self.ledger.checkpoints.uses(directory) or self.ledger.samplers.uses(directory)
            if not used:
                self.checkpoints.remove(directory)
        self.ledger.pending.sweep(finished_before=finished_before, seen_before=seen_before)
        self.ledger.answers.sweep(now)
        self.downloads.sweep()

    def _sweep_and_go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(_SWEPT_EVERY_S, self._sweep_and_go_on)
        self.sweep()  # a full disk may break it: the next one comes all the same

    def release(self) -> None:
        """Let go of every request that waits for a result. Idempotent."""
        self.promises.release()

    async def close(self, timeout_s: float = 2.0) -> bool:
        """End the work and close the ledger; live weights that were not saved are lost.

        Returns:
            Whether the work ended in time.
        """
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.release()
        self.runs.close()
        closing = (asyncio.to_thread(served.close, timeout_s) for served in self.shelf)
        ended = await asyncio.gather(*closing)
        await self.traces.close()
        await asyncio.to_thread(self.telemetry.close)
        self.ledger.close()
        return all(ended)

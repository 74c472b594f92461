"""What has to outlive the engine's process, as one SQLite file of tables.

Knows nothing of HTTP, of tensors or of event loops; safe to use from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.engine.store.database import Database
from tinker_ray.engine.store.journal import Journal
from tinker_ray.engine.store.schema import STEPS
from tinker_ray.engine.store.table.answer import AnswerTable
from tinker_ray.engine.store.table.audit import AuditTable
from tinker_ray.engine.store.table.checkpoint import CheckpointTable
from tinker_ray.engine.store.table.key import KeyTable
from tinker_ray.engine.store.table.loss import LossTable
from tinker_ray.engine.store.table.model import ModelTable
from tinker_ray.engine.store.table.pending import PendingTable
from tinker_ray.engine.store.table.sampler import SamplerTable
from tinker_ray.engine.store.table.session import SessionTable
from tinker_ray.engine.store.table.usage import UsageTable

if TYPE_CHECKING:
    from pathlib import Path


class Ledger:
    """The rows of one data folder.

    Args:
        folder: Where the file ``ledger.sqlite`` and the folder ``outcomes`` are, or are made.
        max_outcome_bytes: Outcomes of promises are kept up to this sum, the oldest going first.

    Attributes:
        journal: The promises of training.
        sessions: The sessions of clients.
        models: The models in training.
        samplers: The sampling sessions.
        checkpoints: The saved weights.
        losses: The custom losses.
        pending: Samples that were promised.
        keys: The API keys.
        audit: What was done to checkpoints, projects and keys.
        usage: What was computed.
        answers: Answers that may be asked for again.

    Raises:
        EngineError: The file is damaged, or of a newer version of the engine.
    """

    def __init__(self, folder: Path, *, max_outcome_bytes: int = 512 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        database = self._database = Database(folder / "ledger.sqlite", STEPS)
        self.journal = Journal(database, folder / "outcomes", max_bytes=max_outcome_bytes)
        self.sessions = SessionTable(database)
        self.models = ModelTable(database)
        self.samplers = SamplerTable(database, folder)
        self.checkpoints = CheckpointTable(database, folder)
        self.losses = LossTable(database)
        self.pending = PendingTable(database)
        self.keys = KeyTable(database)
        self.audit = AuditTable(database)
        self.usage = UsageTable(database)
        self.answers = AnswerTable(database)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def recover(self) -> None:
        """Record what died with the process before this one: live models and pending promises."""
        self.models.recover()
        self.journal.recover()

"""The models in training: which are alive, and the queue of operations that each has.

Knows nothing of HTTP, nor of what an operation does. Lives on one event loop.

Invariant: an operation is accepted once per ``(model_id, seq_id)``, also across restarts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.operation import TrainingOperation
from tinker_ray.engine.serving.rejection import RequestRejected, gone, not_found
from tinker_ray.engine.serving.training_queue import TrainingQueue
from tinker_ray.engine.store.journal import LOAD_THE_LAST_CHECKPOINT
from tinker_ray.engine.store.row import Activity, ModelRow
from tinker_ray.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tinker_ray.engine.serving.promise import PromiseStore
    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.store.row import Outcome, UsageType

    Work = Callable[[], Awaitable[Outcome]]

CREATION_SEQ = 0
"""The place in a model's order of the operation that makes it."""


class TrainingRuns:
    """All models of an engine.

    Args:
        ledger: Where they are recorded.
        promises: Where their operations are.
        gap_timeout_s: How long an operation waits for one before it that does not come.
    """

    def __init__(self, ledger: Ledger, promises: PromiseStore, *, gap_timeout_s: float) -> None:
        self._ledger = ledger
        self._promises = promises
        self._gap_timeout_s = gap_timeout_s
        self._queues: dict[str, TrainingQueue] = {}

    def model(self, model_id: str, owner: str, *, field: str = "model_id") -> ModelRow:
        """Look a model up.

        Raises:
            RequestRejected: The owner has none of this name.
        """
        row = self._ledger.models.get(model_id)
        if row is None or row.owner != owner:
            raise not_found(f"there is no model {model_id!r}", field)
        return row

    def create(self, kind: str, row: ModelRow, work: Work) -> str:
        """Accept the making of a model; return the request id of its promise.

        Raises:
            RequestRejected: The model was made by a request of another kind.
        """
        known = self._promises.find_training(kind, row.model_id, CREATION_SEQ)
        if known is not None:
            return known
        if self._ledger.models.get(row.model_id) is not None:
            message = f"{row.model_id} holds a copy of weights: take another number"
            raise RequestRejected(message, field="model_seq_id")
        self._ledger.models.add(row)
        self._queues[row.model_id] = TrainingQueue(gap_timeout_s=self._gap_timeout_s)
        return self._submit(kind, row, CREATION_SEQ, work, {})

    def accept(  # noqa: PLR0913 - an operation, whose it is, and what it takes
        self,
        kind: str,
        model_id: str,
        seq_id: int | None,
        prepare: Callable[[ModelRow], Work],
        *,
        owner: str,
        usage: Mapping[UsageType, int] | None = None,
    ) -> str:
        """Accept an operation on a model; return the request id of its promise.

        Args:
            kind: The operation's name.
            model_id: The model.
            seq_id: Its place in the model's order; None for the next one.
            prepare: Checks the request against the model and returns the work; not called for a
                request that repeats an earlier one.
            owner: Whose model it has to be.
            usage: What is counted if the operation succeeds.

        Raises:
            RequestRejected: The model is unknown or gone, the place is used, or the check failed.
        """
        row = self.model(model_id, owner)
        known = self._promises.find_training(kind, model_id, seq_id)
        if known is not None:
            return known
        self.check_live(row)
        if seq_id is not None and self._queues[model_id].is_past(seq_id):
            message = f"{seq_id} had its turn: its request was rejected, or came too late"
            raise RequestRejected(message, field="seq_id")
        work = prepare(row)
        self._ledger.models.touch(model_id, time.time())
        return self._submit(kind, row, seq_id, work, usage or {})

    def check_live(self, row: ModelRow) -> None:
        """Make sure that a model's weights are there.

        Raises:
            RequestRejected: They are not.
        """
        if row.state == "lost":
            raise gone(f"{row.model_id}: {LOAD_THE_LAST_CHECKPOINT}", "model_id")
        if row.state == "copied":
            message = f"{row.model_id} holds a copy of weights: it cannot be trained"
            raise RequestRejected(message, field="model_id")
        if row.state == "unloaded" or row.model_id not in self._queues:
            raise gone(f"{row.model_id} was unloaded", "model_id")

    def skip(self, model_id: str, seq_id: int, owner: str) -> None:
        """Mark the place of a rejected request as used, so that later ones do not wait for it."""
        queue = self._queues.get(model_id)
        row = self._ledger.models.get(model_id)
        if queue is not None and row is not None and row.owner == owner:
            queue.skip(seq_id)

    def forget(self, model_id: str) -> None:
        """Record that a model's weights were let go on purpose."""
        self._ledger.models.set_state(model_id, "unloaded")

    def close(self) -> None:
        """Stop watching the queues; what waits in them is lost with the process."""
        for queue in self._queues.values():
            queue.close()

    def _submit(
        self,
        kind: str,
        row: ModelRow,
        seq_id: int | None,
        work: Work,
        usage: Mapping[UsageType, int],
    ) -> str:
        promise = self._promises.open_training(kind, row.model_id, seq_id, row.owner)
        attributes: dict[str, str | int] = {names.METHOD: kind, names.MODEL_ID: row.model_id}
        if seq_id is not None:
            attributes[names.SEQ_ID] = seq_id

        def report(accepted_at: float, started_at: float, ended_at: float, ok: bool) -> None:  # noqa: FBT001
            self._ledger.usage.record(
                Activity(
                    request_id=promise.request_id,
                    kind=kind,
                    owner=row.owner,
                    session_id=row.session_id,
                    base_model=row.base_model,
                    track=row.model_id,
                    accepted_at=accepted_at,
                    started_at=started_at,
                    ended_at=ended_at,
                    ok=ok,
                    usage=usage if ok else {},
                )
            )

        operation = TrainingOperation(promise, self._promises, work, attributes, report)
        order = None if seq_id == CREATION_SEQ else seq_id
        self._queues[row.model_id].submit(order, operation)
        return promise.request_id

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
from tinker_ray.engine.store.row import ModelRow
from tinker_ray.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tinker_ray.engine.serving.promise import PromiseStore
    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.store.row import Outcome

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

    def model(self, model_id: str, *, field: str = "model_id") -> ModelRow:
        """Look a model up.

        Raises:
            RequestRejected: There is none.
        """
        row = self._ledger.model(model_id)
        if row is None:
            raise not_found(f"there is no model {model_id!r}", field)
        return row

    def create(self, kind: str, row: ModelRow, work: Work) -> str:
        """Accept the making of a model; return the request id of its promise."""
        known = self._promises.find_training(kind, row.model_id, CREATION_SEQ)
        if known is not None:
            return known
        self._ledger.add_model(row)
        self._queues[row.model_id] = TrainingQueue(gap_timeout_s=self._gap_timeout_s)
        return self._submit(kind, row.model_id, CREATION_SEQ, work)

    def accept(
        self, kind: str, model_id: str, seq_id: int | None, prepare: Callable[[ModelRow], Work]
    ) -> str:
        """Accept an operation on a model; return the request id of its promise.

        Args:
            kind: The operation's name.
            model_id: The model.
            seq_id: Its place in the model's order; None for the next one.
            prepare: Checks the request against the model and returns the work; not called for a
                request that repeats an earlier one.

        Raises:
            RequestRejected: The model is unknown or gone, the place is used, or the check failed.
        """
        row = self.model(model_id)
        known = self._promises.find_training(kind, model_id, seq_id)
        if known is not None:
            return known
        self.check_live(row)
        if seq_id is not None and self._queues[model_id].is_past(seq_id):
            message = f"{seq_id} had its turn: its request was rejected, or came too late"
            raise RequestRejected(message, field="seq_id")
        work = prepare(row)
        self._ledger.touch_model(model_id, time.time())
        return self._submit(kind, model_id, seq_id, work)

    def check_live(self, row: ModelRow) -> None:
        """Make sure that a model's weights are there.

        Raises:
            RequestRejected: They are not.
        """
        if row.state == "lost":
            raise gone(f"{row.model_id}: {LOAD_THE_LAST_CHECKPOINT}", "model_id")
        if row.state == "unloaded" or row.model_id not in self._queues:
            raise gone(f"{row.model_id} was unloaded", "model_id")

    def skip(self, model_id: str, seq_id: int) -> None:
        """Mark the place of a rejected request as used, so that later ones do not wait for it."""
        if (queue := self._queues.get(model_id)) is not None:
            queue.skip(seq_id)

    def forget(self, model_id: str) -> None:
        """Record that a model's weights were let go on purpose."""
        self._ledger.set_model_state(model_id, "unloaded")

    def close(self) -> None:
        """Stop watching the queues; what waits in them is lost with the process."""
        for queue in self._queues.values():
            queue.close()

    def _submit(self, kind: str, model_id: str, seq_id: int | None, work: Work) -> str:
        promise = self._promises.open_training(kind, model_id, seq_id)
        attributes: dict[str, str | int] = {names.METHOD: kind, names.MODEL_ID: model_id}
        if seq_id is not None:
            attributes[names.SEQ_ID] = seq_id
        operation = TrainingOperation(promise, self._promises, work, attributes)
        order = None if seq_id == CREATION_SEQ else seq_id
        self._queues[model_id].submit(order, operation)
        return promise.request_id

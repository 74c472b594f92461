"""Custom losses: checked when they come, kept in the ledger, rebuilt when a batch names them.

Knows nothing of HTTP, nor of what a loss computes. Safe to use from any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.rejection import not_found
from tinker_ray.engine.store.row import LossRow
from tinker_ray.engine.training.custom_loss import validate_graph

if TYPE_CHECKING:
    from tinker_ray.engine.store.ledger import Ledger
    from tinker_ray.engine.training.custom_loss import CustomLoss

_MAX_REBUILT = 256


class CustomLosses:
    """The custom losses of an engine.

    Args:
        ledger: Where they are kept.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._rebuilt: OrderedDict[str, CustomLoss] = OrderedDict()

    def add(self, row: LossRow) -> None:
        """Check a loss and keep it.

        Raises:
            EngineError: It is malformed, or computes what is not allowed.
        """
        self._hold(row.loss_id, validate_graph(row.graph, row.inputs))
        self._ledger.losses.add(row)

    def find(self, loss_id: str, session_id: str) -> CustomLoss:
        """Look a loss of a session up.

        Raises:
            RequestRejected: The session has none of this name.
        """
        row = self._ledger.losses.get(loss_id)
        if row is None or row.session_id != session_id:
            message = f"the model's session has no loss {loss_id!r}"
            raise not_found(message, "loss_fn_config.loss_id")
        with self._lock:
            held = self._rebuilt.get(loss_id)
        return held or self._hold(loss_id, validate_graph(row.graph, row.inputs))

    def _hold(self, loss_id: str, loss: CustomLoss) -> CustomLoss:
        with self._lock:
            self._rebuilt[loss_id] = loss
            while len(self._rebuilt) > _MAX_REBUILT:
                self._rebuilt.popitem(last=False)
        return loss

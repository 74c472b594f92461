"""One accepted training operation: it waits for its turn, is run, and settles its promise.

Errors end here: what the request was at fault for is told as it is, anything else gets an id under
which the log has it. Knows nothing of what is computed.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

from tinker_ray.engine.store.row import Outcome
from tinker_ray.errors import EngineError
from tinker_ray.telemetry import inject, names
from tinker_ray.telemetry.trace import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tinker_ray.engine.serving.promise import Promise, PromiseStore

    Report = Callable[[float, float, float, bool], None]

_logger = logging.getLogger("tinker_ray.engine")


def json_outcome(value: Mapping[str, Any]) -> Outcome:
    """Make the outcome of an operation with a small result."""
    return Outcome("json", json.dumps(value).encode())


def failure(message: str, category: str) -> Outcome:
    """Make the outcome of an operation that failed."""
    return Outcome("error", json.dumps({"error": message, "category": category}).encode())


def failure_of(error: BaseException, what: str) -> Outcome:
    """Make the outcome for an error; an unexpected one is logged, once, under an id."""
    if isinstance(error, EngineError) and (error.category == "user" or error.__cause__ is None):
        return failure(error.message, error.category)
    error_id = secrets.token_hex(6)
    _logger.error("%s failed (error %s)", what, error_id, exc_info=error)
    return failure(f"{error} (error {error_id} in the engine's log)", "server")


class TrainingOperation:
    """An operation in a model's queue.

    Args:
        promise: What it settles.
        promises: Where that is kept.
        work: Computes the outcome.
        attributes: For its spans.
        report: Takes when it was accepted, started and ended, in seconds, and whether it succeeded.
    """

    def __init__(
        self,
        promise: Promise,
        promises: PromiseStore,
        work: Callable[[], Awaitable[Outcome]],
        attributes: Mapping[str, str | int],
        report: Report | None = None,
    ) -> None:
        self._promise = promise
        self._promises = promises
        self._work = work
        self._attributes = attributes
        self._report = report
        self._carrier = inject()
        self._accepted_ns = time.time_ns()

    async def run(self) -> None:
        """Do the work and settle the promise."""
        started_ns = time.time_ns()
        self._record(names.ENGINE_QUEUE, self._accepted_ns, started_ns)
        try:
            outcome = await self._work()
        except Exception as error:  # noqa: BLE001 - the border of an operation
            outcome = failure_of(error, self._promise.kind)
        ended_ns = time.time_ns()
        self._record(names.ENGINE_TRAIN, started_ns, ended_ns)
        if self._report is not None:
            accepted_at, started_at = self._accepted_ns / 1e9, started_ns / 1e9
            self._report(accepted_at, started_at, ended_ns / 1e9, outcome.form != "error")
        await self._settle(outcome)

    async def give_up(self, reason: str) -> None:
        """Settle the promise with a failure."""
        await self._settle(failure(reason, "user"))

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await self._promises.settle_training(self._promise, outcome)
        except Exception as error:  # noqa: BLE001 - such as a full disk
            self._promises.show(self._promise, failure_of(error, "recording a result"))

    def _record(self, name: str, start_ns: int, end_ns: int) -> None:
        attributes = {names.REQUEST_ID: self._promise.request_id, **self._attributes}
        record(name, start_ns=start_ns, end_ns=end_ns, attributes=attributes, carrier=self._carrier)

"""One model's training operations: submitted in order, each once, polled side by side.

Only the submission takes a turn: the next operation is sent as soon as the promise of its
predecessor has arrived, and the service runs them by ``seq_id``. Where the service allows it, the
parts of one batch take one turn together, the first part last, so that the service finds the whole
batch when it may begin. A submission that was started is never cancelled, because a number that
does not reach the service would hold up all later ones; a caller that gives up only stops waiting.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tinker_ray.core import operation as operations
from tinker_ray.core.gathering import Gathering
from tinker_ray.core.operation import ForwardBackward
from tinker_ray.core.polling import retrieve
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.core.sdk_method import carried
from tinker_ray.core.turnstile import Turnstile
from tinker_ray.errors import StaleHandleError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.wire.packed import data_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tinker_ray.core.link import Link, Promise
    from tinker_ray.core.operation import Encoded, Operation

GROUP_PARTS = 32
"""Parts of a batch that take a turn together; a longer batch takes several turns. Fewer than the
operations that a caller may have under way, or the first would wait for what cannot come."""
LARGE_BYTES = 65536
"""A batch above this is encoded in a thread."""


class TrainingCore:
    """Executes the operations of one model.

    Repeating an operation with the same ``seq`` joins the first execution, and after a restart of
    this object the service recognises ``(model_id, seq_id)``: so an operation may be handed over
    any number of times and is applied once.
    """

    def __init__(self, link: Link, model_id: str, *, first_seq: int = 1) -> None:
        self.model_id = model_id
        self._link = link
        self._turnstile = Turnstile(first_seq)
        self._gathering = Gathering(link.clock)
        self._log = QueueLog.of_training(f"the training of {model_id}", link.clock.now)
        self._running: dict[int, asyncio.Task[Any]] = {}

    def __repr__(self) -> str:
        """Show the model and what runs."""
        return (
            f"TrainingCore({self.model_id!r}, {self._turnstile!r}, running={sorted(self._running)})"
        )

    async def run(
        self, operation: Operation, floor: int = 0, carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - each kind of operation has its own result
        """Execute an operation in its turn and return its result.

        Args:
            operation: What to do; its ``seq`` was issued by the one owner of the order.
            floor: No number below it will ever come (again): all were acknowledged or given up.
            carrier: The trace that this belongs to.

        Raises:
            RequestFailedError: The operation failed at the service.
            APIStatusError: The service refused it.
            APIConnectionError: The service could not be reached for as long as the retries last.
            StaleHandleError: This object was closed.
        """
        self._forget_below(floor)
        task = self._running.get(operation.seq)
        if task is None:
            task = asyncio.create_task(self._execute(operation, carrier))
            self._running[operation.seq] = task
            task.add_done_callback(_observe)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            message = f"{self.model_id} was closed: operation {operation.seq} may go on there"
            raise StaleHandleError(message) from None

    @asynccontextmanager
    async def turn(self, seq: int, floor: int = 0) -> AsyncIterator[None]:
        """Hold a number's turn, for a caller that sends its operation by itself.

        Args:
            seq: The number.
            floor: As for :meth:`run`.

        Raises:
            StaleHandleError: The number was used before.
        """
        self._forget_below(floor)
        async with self._turnstile.turn(seq):
            yield

    @property
    def next_number(self) -> int:
        """Whose turn it is."""
        return self._turnstile.next_number

    async def aclose(self) -> None:
        """Stop polling; operations that the service accepted go on there."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    def advance_to(self, floor: int) -> None:
        """Note that no number below ``floor`` will come (again): those that are missing least."""
        self._forget_below(floor)

    def _forget_below(self, floor: int) -> None:
        self._turnstile.advance_to(floor)
        for seq in [seq for seq in self._running if seq < floor]:
            if self._running[seq].done():
                del self._running[seq]

    async def _execute(self, operation: Operation, carrier: Mapping[str, str] | None) -> Any:  # noqa: ANN401
        attributes: dict[str, str | int] = {
            names.MODEL_ID: self.model_id,
            names.SEQ_ID: operation.seq,
        }
        name = operations.span_name(operation)
        with carried(carrier), span(name, attributes=attributes, carrier=carrier):
            group = self._group(operation)
            await self._gathering.meet(operation.seq, group)
            async with self._turnstile.turn(operation.seq, group):
                promise, encoded = await self._submit(operation)
            return await retrieve(self._link, promise, encoded.result, self._log)

    def _group(self, operation: Operation) -> range:
        """Tell which operations take a turn together with this one."""
        alone = range(operation.seq, operation.seq + 1)
        if not isinstance(operation, ForwardBackward):
            return alone
        if not self._link.flags.parallel_fwdbwd_chunks:
            return alone
        start = operation.seq - operation.part % GROUP_PARTS
        end = operation.seq - operation.part + operation.num_parts
        return range(start, min(start + GROUP_PARTS, end))

    async def _submit(self, operation: Operation) -> tuple[Promise, Encoded]:
        if not isinstance(operation, ForwardBackward):
            return await self._send(operation)
        num_bytes = data_bytes(operation.data)
        async with self._link.batches.hold(num_bytes):
            return await self._send(operation, in_thread=num_bytes > LARGE_BYTES)

    async def _send(
        self, operation: Operation, *, in_thread: bool = False
    ) -> tuple[Promise, Encoded]:
        flags = self._link.flags
        if in_thread and flags.proto_compress_fwdbwd:
            encoded = await asyncio.to_thread(
                operations.encode, operation, self.model_id, protobuf=True, compress=True
            )
        else:
            encoded = operations.encode(
                operation,
                self.model_id,
                protobuf=flags.protobuf,
                compress=flags.proto_compress_fwdbwd,
            )
        return await self._link.submit(encoded.endpoint, encoded.body), encoded


def _observe(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as seen: whoever gave up waiting wants no warning about it."""
    if not task.cancelled():
        task.exception()

"""Promises: operations that were accepted, what they came to, and who waits for them.

Lives on one event loop; a waiter sleeps until its promise is settled or its time is up, nothing
polls. Training promises are in the ledger's journal as well, so that they survive the process;
those of samples die with it. Knows nothing of HTTP or of what an operation does.

Invariant: a promise is settled once; a training outcome is in the journal before anyone sees it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from tinker_ray.engine.serving.rejection import RequestRejected, gone, not_found
from tinker_ray.engine.store.row import Outcome, PromiseRow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from tinker_ray.engine.store.journal import Journal

_SAMPLE_ID = re.compile(r"sample-[0-9a-f]{24}\Z")
_LARGE_BYTES = 64 << 10


class Promise:
    """An accepted operation.

    Attributes:
        request_id: Its id on the wire.
        kind: The operation's name, such as ``optim_step``.
        outcome: What it came to; None until then.
        cancel: What gives the operation up, if it can be given up.
    """

    __slots__ = ("_settled", "cancel", "key", "kind", "outcome", "request_id")

    def __init__(
        self,
        request_id: str,
        kind: str,
        *,
        key: Hashable | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.request_id = request_id
        self.kind = kind
        self.key = key
        self.outcome = outcome
        self.cancel: Callable[[], object] | None = None
        self._settled = asyncio.Event()

    async def wait(self, timeout_s: float) -> Outcome | None:
        """Return the outcome as soon as there is one, or None when the time is up."""
        if self.outcome is None and not self._settled.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()
            except TimeoutError:
                return None
        return self.outcome

    def settle(self, outcome: Outcome) -> bool:
        """Set the outcome and wake the waiters; False if there is one already."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self._settled.set()
        return True

    def release(self) -> None:
        """Wake the waiters without an outcome."""
        self._settled.set()


class PromiseStore:
    """All promises of an engine.

    Args:
        journal: Where training promises are kept.
        max_settled: Settled promises held in memory; the least recently read goes first.
        max_settled_bytes: The same, as the sum of their outcomes.
    """

    def __init__(
        self, journal: Journal, *, max_settled: int = 50_000, max_settled_bytes: int = 512 << 20
    ) -> None:
        self._journal = journal
        self._max_settled = max_settled
        self._max_settled_bytes = max_settled_bytes
        self._pending: dict[str, Promise] = {}
        self._settled: OrderedDict[str, Promise] = OrderedDict()
        self._settled_bytes = 0
        self._samples: dict[Hashable, Promise] = {}

    def open_training(self, kind: str, model_id: str, seq_id: int | None) -> Promise:
        """Record an accepted training operation."""
        promise = Promise(f"train-{secrets.token_hex(12)}", kind)
        self._journal.open(PromiseRow(promise.request_id, kind, model_id, seq_id, outcome=None))
        self._pending[promise.request_id] = promise
        return promise

    def find_training(self, kind: str, model_id: str, seq_id: int | None) -> str | None:
        """Return the request id of the operation that holds a place in its model's order.

        Raises:
            RequestRejected: It is an operation of another kind.
        """
        row = None if seq_id is None else self._journal.find(model_id, seq_id)
        if row is None:
            return None
        if row.kind != kind:
            message = f"{seq_id} was already used by {row.kind} of {model_id}"
            raise RequestRejected(message, field="seq_id")
        return row.request_id

    async def settle_training(self, promise: Promise, outcome: Outcome) -> None:
        """Write an outcome to the journal, then show it."""
        if len(outcome.body) > _LARGE_BYTES:
            await asyncio.to_thread(self._journal.settle, promise.request_id, outcome)
        else:
            self._journal.settle(promise.request_id, outcome)
        self.show(promise, outcome)

    def open_sample(self, key: Hashable | None) -> Promise:
        """Record an accepted sample; ``key`` is what a repetition of the request has in common."""
        promise = Promise(f"sample-{secrets.token_hex(12)}", "sample", key=key)
        self._pending[promise.request_id] = promise
        if key is not None:
            self._samples[key] = promise
        return promise

    def find_sample(self, key: Hashable) -> Promise | None:
        """Return the promise of an earlier request with the same key."""
        return self._samples.get(key)

    def get(self, request_id: str) -> Promise:
        """Look a promise up.

        Raises:
            RequestRejected: It is unknown (404), or it is lost with its process or dropped to make
                room (410).
        """
        if (pending := self._pending.get(request_id)) is not None:
            return pending
        if (settled := self._settled.get(request_id)) is not None:
            self._settled.move_to_end(request_id)
            return settled
        if _SAMPLE_ID.match(request_id):
            raise gone(f"the result of {request_id} is lost: sample again", "request_id")
        row = self._journal.promise(request_id)
        if row is None:
            raise not_found(f"there is no promise {request_id!r}", "request_id")
        if row.outcome is None:
            raise gone(f"the result of {request_id} was dropped to make room", "request_id")
        return Promise(request_id, row.kind, outcome=row.outcome)

    def release(self) -> None:
        """Wake every waiter, because the engine stops."""
        for promise in self._pending.values():
            promise.release()

    def show(self, promise: Promise, outcome: Outcome) -> None:
        """Settle a promise in memory; one that is settled stays as it is."""
        if not promise.settle(outcome):
            return
        promise.cancel = None
        self._pending.pop(promise.request_id, None)
        self._settled[promise.request_id] = promise
        self._settled_bytes += len(outcome.body)
        while len(self._settled) > self._max_settled or (
            self._settled_bytes > self._max_settled_bytes and len(self._settled) > 1
        ):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, dropped = self._settled.popitem(last=False)
        if dropped.outcome is not None:
            self._settled_bytes -= len(dropped.outcome.body)
        if dropped.key is not None and self._samples.get(dropped.key) is dropped:
            del self._samples[dropped.key]

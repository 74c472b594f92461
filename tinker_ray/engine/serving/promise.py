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

from tinker_ray.engine.serving.completion import Completion, CompletionBoard
from tinker_ray.engine.serving.rejection import RequestRejected, gone, not_found
from tinker_ray.engine.store.row import LOCAL_OWNER, Outcome, PromiseRow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from tinker_ray.engine.serving.completion import CompletionFeed, Target
    from tinker_ray.engine.store.journal import Journal

_SAMPLE_ID = re.compile(r"sample-[0-9a-f]{24}\Z")
_LARGE_BYTES = 64 << 10


class Promise:
    """An accepted operation.

    Attributes:
        request_id: Its id on the wire.
        kind: The operation's name, such as ``optim_step``.
        outcome: What it came to; None until then.
        owner: Who may ask for it.
        cancel: What gives the operation up, if it can be given up.
        target: Whose poll tells of its end.
    """

    __slots__ = ("_settled", "cancel", "key", "kind", "outcome", "owner", "request_id", "target")

    def __init__(  # noqa: PLR0913 - what is known of an operation
        self,
        request_id: str,
        kind: str,
        *,
        owner: str = LOCAL_OWNER,
        key: Hashable | None = None,
        target: Target | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        self.request_id = request_id
        self.kind = kind
        self.owner = owner
        self.key = key
        self.target = target
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

    Attributes:
        completions: Tells of samples that ended.
    """

    def __init__(
        self, journal: Journal, *, max_settled: int = 50_000, max_settled_bytes: int = 512 << 20
    ) -> None:
        self.completions = CompletionBoard()
        self._journal = journal
        self._max_settled = max_settled
        self._max_settled_bytes = max_settled_bytes
        self._pending: dict[str, Promise] = {}
        self._settled: OrderedDict[str, Promise] = OrderedDict()
        self._settled_bytes = 0
        self._samples: dict[Hashable, Promise] = {}

    def open_training(
        self, kind: str, model_id: str, seq_id: int | None, owner: str = LOCAL_OWNER
    ) -> Promise:
        """Record an accepted training operation."""
        promise = Promise(f"train-{secrets.token_hex(12)}", kind, owner=owner)
        self._journal.open(
            PromiseRow(promise.request_id, kind, model_id, seq_id, outcome=None, owner=owner)
        )
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

    def open_sample(
        self, key: Hashable | None, owner: str = LOCAL_OWNER, target: Target | None = None
    ) -> Promise:
        """Record an accepted sample.

        Args:
            key: What a repetition of the request has in common with it.
            owner: Who may ask for it.
            target: Whose poll tells of its end.
        """
        request_id = f"sample-{secrets.token_hex(12)}"
        promise = Promise(request_id, "sample", owner=owner, key=key, target=target)
        self._pending[promise.request_id] = promise
        if key is not None:
            self._samples[key] = promise
        return promise

    def find_sample(self, key: Hashable) -> Promise | None:
        """Return the promise of an earlier request with the same key."""
        return self._samples.get(key)

    def get(self, request_id: str, owner: str = LOCAL_OWNER) -> Promise:
        """Look a promise up.

        Raises:
            RequestRejected: The owner has none of this id (404), or it is lost with its process or
                dropped to make room (410).
        """
        promise = self._pending.get(request_id) or self._settled.get(request_id)
        if promise is not None and promise.owner == owner:
            if promise.outcome is not None:
                self._settled.move_to_end(request_id)
            return promise
        if _SAMPLE_ID.match(request_id):
            raise gone(f"the result of {request_id} is lost: sample again", "request_id")
        row = self._journal.promise(request_id)
        if row is None or row.owner != owner:
            raise not_found(f"there is no promise {request_id!r}", "request_id")
        if row.outcome is None:
            raise gone(f"the result of {request_id} was dropped to make room", "request_id")
        return Promise(request_id, row.kind, owner=owner, outcome=row.outcome)

    def open_feed(self, target: Target, cursor: int, promised: Iterable[str]) -> CompletionFeed:
        """Start what tells of a client's samples.

        Args:
            target: Whose.
            cursor: Up to where the client knows.
            promised: Samples that were promised; those that are not known here have failed.
        """
        ended = [_completion(item) for item in self._settled.values() if item.target == target]
        known = {*self._pending, *self._settled}
        ended += [Completion(item, None) for item in promised if item not in known]
        return self.completions.open(target, cursor, ended)

    def forget(self, request_id: str, target: Target) -> None:
        """Drop the outcome of a sample that its client has."""
        promise = self._settled.get(request_id)
        if promise is not None and promise.target == target:
            self._drop(promise)

    def release(self) -> None:
        """Wake every waiter, because the engine stops."""
        for promise in self._pending.values():
            promise.release()
        self.completions.release()

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
            self._drop(next(iter(self._settled.values())))
        if promise.target is not None:
            self.completions.post(promise.target, _completion(promise))

    def _drop(self, promise: Promise) -> None:
        del self._settled[promise.request_id]
        if promise.outcome is not None:
            self._settled_bytes -= len(promise.outcome.body)
        if promise.key is not None and self._samples.get(promise.key) is promise:
            del self._samples[promise.key]


def _completion(promise: Promise) -> Completion:
    outcome = promise.outcome
    if outcome is None or outcome.form == "error":
        return Completion(promise.request_id, None)
    return Completion(promise.request_id, len(outcome.body))

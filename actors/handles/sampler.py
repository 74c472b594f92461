"""Samples drawn by a pool of sampler actors.

Samples that are asked for in one tick of the event loop travel in one call per sampler. When a
sampler dies, its samples are submitted again, as new attempts; whatever the old attempt may still
yield is never read. Invariant: every sample ends once, and none is submitted more than
``MAX_ATTEMPTS`` times.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.sampler import SampleItem
from tinker_ray.core.sdk_method import carry
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.errors import ActorLostError, StaleHandleError, TinkerError
from tinker_ray.telemetry.carrier import inject

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from actors.handles.remote import RemoteActor
    from actors.sampler import Outcomes
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.types import RetryConfig, SampleResponse
    from tinker_ray.wire.request import SampleRequest

MAX_ATTEMPTS = 8
PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
LOCALITY = 32
"""How many samples more a sampler on one's own node may have in flight than one elsewhere."""
DRAIN_S = 5.0


@dataclass(eq=False)
class _Sample:
    """A sample that somebody waits for."""

    item: SampleItem
    answer: asyncio.Future[SampleResponse]
    attempt: int = 0
    drawn_by: _Sampler | None = None


@dataclass(eq=False)
class _Sampler:
    """One sampler actor, as seen from here."""

    remote: RemoteActor
    node: str = ""
    in_flight: int = 0
    losses_in_a_row: int = 0


class SamplerPoolHandle:
    """Calls the sampler that has least to do, rather one on this node.

    Args:
        remotes: The samplers.
        node: The Ray node of this process.
        is_copy: The samplers are another process's, and end with that one.
    """

    def __init__(
        self, remotes: Sequence[RemoteActor], node: str = "", *, is_copy: bool = False
    ) -> None:
        self._samplers = [_Sampler(remote) for remote in remotes]
        self._node = node
        self._is_copy = is_copy
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._abandoned: defaultdict[_Sampler, list[str]] = defaultdict(list)
        self._open: set[_Sample] = set()
        self._waiting: list[_Sample] = []
        self._dispatch: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._located = len(remotes) == 1
        self._closed = False

    def __repr__(self) -> str:
        """Show the samplers and what is in flight."""
        load = {sampler.remote.name: sampler.in_flight for sampler in self._samplers}
        return f"SamplerPoolHandle({load}, waiting={len(self._waiting)})"

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw samples; cancelling this cancels them at the service, too.

        Raises:
            ActorLostError: The samplers died over it again and again.
            StaleHandleError: The pool was closed.
            TinkerError: The request was refused, failed or lost.
        """
        key = f"{self._prefix}-{next(self._numbers)}"
        carrier = carry(inject() if carrier is None else carrier)
        item = SampleItem(request, retry, carrier, key, traffic)
        sample = _Sample(item, asyncio.get_running_loop().create_future())
        self._open.add(sample)
        try:
            self._submit(sample)
            return await sample.answer
        except asyncio.CancelledError:
            self._abandon(sample)
            raise
        finally:
            self._open.discard(sample)

    async def aclose(self) -> None:
        """End the samplers; whoever waits gets an error. Idempotent."""
        self._closed = True
        if self._dispatch is not None:
            self._dispatch.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sample in self._open:
            _fail(sample, _closed())
        if self._is_copy:
            await asyncio.gather(*(sampler.remote.let_go() for sampler in self._samplers))
            return
        await asyncio.gather(
            *(sampler.remote.aclose(drain_s=DRAIN_S) for sampler in self._samplers)
        )

    def _submit(self, sample: _Sample) -> None:
        if self._closed:
            _fail(sample, _closed())
            return
        self._waiting.append(sample)
        if self._dispatch is None:
            self._dispatch = asyncio.get_running_loop().call_soon(self._dispatch_waiting)

    def _dispatch_waiting(self) -> None:
        self._dispatch = None
        if not self._located:
            self._located = True
            for sampler in self._samplers:
                self._spawn(self._locate(sampler))
        batches: dict[_Sampler, list[_Sample]] = {}
        for sample in self._waiting:
            if sample.answer.done():
                continue
            sampler = min(self._samplers, key=self._cost)
            sampler.in_flight += 1
            sample.attempt += 1
            sample.drawn_by = sampler
            batches.setdefault(sampler, []).append(sample)
        self._waiting.clear()
        for sampler, batch in batches.items():
            self._spawn(self._draw(sampler, batch))

    def _abandon(self, sample: _Sample) -> None:
        """Tell its sampler that nobody waits any more, together with others of this tick."""
        sampler = sample.drawn_by
        if sampler is None or self._closed:
            return
        if not self._abandoned:
            asyncio.get_running_loop().call_soon(self._cancel_abandoned)
        self._abandoned[sampler].append(sample.item.key)

    def _cancel_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, defaultdict(list)
        for sampler, keys in abandoned.items():
            self._spawn(self._cancel(sampler, keys))

    async def _cancel(self, sampler: _Sampler, keys: list[str]) -> None:
        with contextlib.suppress(TinkerError):  # a dead sampler draws nothing
            await sampler.remote.call("cancel", keys)

    def _cost(self, sampler: _Sampler) -> tuple[int, int]:
        distance = 0 if sampler.node == self._node else LOCALITY
        return sampler.losses_in_a_row, sampler.in_flight + distance

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _locate(self, sampler: _Sampler) -> None:
        with contextlib.suppress(TinkerError):
            sampler.node = (await sampler.remote.ping()).node

    async def _draw(self, sampler: _Sampler, batch: list[_Sample]) -> None:
        """Have a batch drawn; what is not answered when the sampler dies goes elsewhere."""
        left = dict(enumerate(batch))
        try:
            items = [sample.item for sample in batch]
            async for outcomes in sampler.remote.stream("sample_many", items):
                sampler.losses_in_a_row = 0
                sampler.in_flight -= len(outcomes)
                _settle(left, outcomes)
            reason = ActorLostError("a sampler left samples unanswered", actor=sampler.remote.name)
        except ActorLostError as error:
            reason = error
        except TinkerError as error:
            for sample in left.values():
                _fail(sample, error)
            return
        finally:
            sampler.in_flight -= len(left)
        if left:
            await self._again(sampler, list(left.values()), reason)

    async def _again(
        self, sampler: _Sampler, samples: list[_Sample], reason: ActorLostError
    ) -> None:
        sampler.losses_in_a_row += 1
        if len(self._samplers) == 1 or sampler.losses_in_a_row > 1:
            await asyncio.sleep(min(PAUSE_S * 2**sampler.losses_in_a_row, LONGEST_PAUSE_S))
        for sample in samples:
            if sample.attempt < MAX_ATTEMPTS:
                self._submit(sample)
            else:
                _fail(sample, reason)


def _settle(left: dict[int, _Sample], outcomes: Outcomes) -> None:
    for number, outcome in outcomes:
        sample = left.pop(number)
        if isinstance(outcome, Exception):
            _fail(sample, outcome)
        elif not sample.answer.done():
            sample.answer.set_result(outcome)


def _closed() -> StaleHandleError:
    return StaleHandleError("the runtime was closed while the sample was under way")


def _fail(sample: _Sample, error: Exception) -> None:
    if not sample.answer.done():
        sample.answer.set_exception(error)

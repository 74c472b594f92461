"""Samples drawn by a pool of sampler actors.

Samples that are asked for in one tick of the event loop travel in few calls per sampler. When a
sampler dies, its samples are submitted again, as new attempts; whatever an old attempt may still
yield is not taken. Invariant: every sample ends once, and none is submitted again after
``MAX_LOSSES`` samplers died over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Protocol

from actors.handles.attempt import Sample, Sampler, attempt, is_repeatable, parts
from actors.hedge import Hedge
from actors.pool_choice import PoolChoice
from tinker_ray.core.sdk_method import carry
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.errors import ActorLostError, StaleHandleError, TinkerError
from tinker_ray.telemetry.carrier import inject

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from actors.handles.attempt import Attempt
    from actors.handles.remote import RemoteActor
    from actors.sampler import Answered, Outcome
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.types import RetryConfig, SampleResponse
    from tinker_ray.wire.request import SampleRequest

logger = logging.getLogger(__name__)

MAX_LOSSES = 8
PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
DRAIN_S = 5.0


class Fleet(Protocol):
    """Decides which samplers there are: it adds them to a pool and drops them."""

    def begin(self, pool: SamplerPoolHandle) -> None:
        """Add the samplers that there are, and see to the pool until closed."""
        ...

    def wake(self) -> None:
        """Note that there are samples."""
        ...

    def came_up(self, name: str, node: str) -> None:
        """Note that a sampler works."""
        ...

    def is_gone(self, name: str, error: TinkerError) -> None:
        """Note that a sampler is dead for good, or cannot work where it is."""
        ...

    async def aclose(self) -> None:
        """Add and drop no more samplers; idempotent."""
        ...


class SamplerPoolHandle:
    """Gives each sample to the sampler that suits it best.

    Belongs to the event loop that it is made on.

    Args:
        fleet: Which samplers there are.
        node: The Ray node of this process.
        carries: Samples that one sampler carries well.
        hedge_after_s: When a repeatable sample is drawn by a second sampler, too; None for never.
        is_copy: The samplers are another process's, and end with that one.
    """

    def __init__(
        self,
        fleet: Fleet,
        node: str = "",
        *,
        carries: int = 5000,
        hedge_after_s: float | None = None,
        is_copy: bool = False,
    ) -> None:
        self.choice = PoolChoice(node, carries)
        self._fleet = fleet
        self._is_copy = is_copy
        self._loop = asyncio.get_running_loop()
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._samplers: dict[str, Sampler] = {}
        self._open: dict[str, Sample] = {}
        self._waiting: deque[Sample] = deque()
        self._dispatch: asyncio.Handle | None = None
        self._abandoned: defaultdict[Sampler, list[str]] = defaultdict(list)
        self._hedge: Hedge[str] | None = None if hedge_after_s is None else Hedge(hedge_after_s)
        self._hedging: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        fleet.begin(self)

    def __repr__(self) -> str:
        """Show the samplers and what is in flight."""
        loads = {name: sampler.member.load for name, sampler in self._samplers.items()}
        return f"SamplerPoolHandle({loads}, waiting={len(self._waiting)})"

    @property
    def num_waiting(self) -> int:
        """Samples that no sampler has yet."""
        return len(self._waiting)

    @property
    def num_open(self) -> int:
        """Samples that somebody waits for."""
        return len(self._open)

    @property
    def samplers(self) -> Mapping[str, Sampler]:
        """The samplers, by the names of their actors."""
        return self._samplers

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw samples; cancelling this cancels them at the service, too.

        Raises:
            ActorLostError: Samplers died over it again and again, or there are none.
            StaleHandleError: The pool was closed.
            TinkerError: The request was refused, failed or lost.
        """
        key = f"{self._prefix}-{next(self._numbers)}"
        carrier = carry(inject() if carrier is None else carrier)
        answer: asyncio.Future[SampleResponse] = self._loop.create_future()
        sample = Sample(key, request, retry, carrier, traffic, answer, self._loop.time())
        self._open[key] = sample
        try:
            self._submit(sample)
            return await answer
        finally:
            del self._open[key]
            for begun in tuple(sample.attempts):  # cancelled, or answered by another
                self._abandon(begun)

    # --- the samplers, as the fleet knows them --------------------------------------------------

    def add(self, remote: RemoteActor, node: str = "") -> None:
        """Add a sampler; it is given samples from its first sign of life on."""
        sampler = Sampler(remote, self.choice.join(remote.name, node))
        self._samplers[remote.name] = sampler
        self._locate_later(sampler)

    def retire(self, name: str) -> None:
        """Give a sampler nothing more."""
        if name in self._samplers:
            self._samplers[name].member.is_ending = True

    def drop(self, name: str) -> RemoteActor | None:
        """Forget a sampler, whose samples are drawn elsewhere; return its actor."""
        sampler = self._samplers.pop(name, None)
        if sampler is None:
            return None
        self.choice.leave(name)
        reason = ActorLostError(f"the actor {name} is lost: it was ended", actor=name)
        self._again([begun for begun in tuple(sampler.open.values()) if begun.close()], reason)
        return sampler.remote

    def look_again(self) -> None:
        """Note that somebody may be able to take what waits."""
        if self._waiting and self._dispatch is None and not self._closed:
            self._dispatch = self._loop.call_soon(self._dispatch_waiting)

    def fail_waiting(self, error: TinkerError) -> None:
        """Give up the samples that no sampler has."""
        for sample in self._waiting:
            sample.fail(error)
        self._waiting.clear()

    async def aclose(self) -> None:
        """End the samplers; whoever waits gets an error. Idempotent."""
        self._closed = True
        await self._fleet.aclose()
        if self._dispatch is not None:
            self._dispatch.cancel()
        if self._hedging is not None:
            self._hedging.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sample in self._open.values():
            sample.fail(_closed())
        remotes = [sampler.remote for sampler in self._samplers.values()]
        if self._is_copy:
            await asyncio.gather(*(remote.let_go() for remote in remotes))
        else:
            await asyncio.gather(*(remote.aclose(drain_s=DRAIN_S) for remote in remotes))

    # --- giving samples away --------------------------------------------------------------------

    def _submit(self, sample: Sample) -> None:
        if self._closed:
            sample.fail(_closed())
            return
        self._waiting.append(sample)
        self.look_again()
        self._fleet.wake()

    def _dispatch_waiting(self) -> None:
        self._dispatch = None
        batches: defaultdict[Sampler, list[Attempt]] = defaultdict(list)
        now = self._loop.time()
        while self._waiting:
            sample = self._waiting[0]
            if not sample.answer.done():
                member = self.choice.pick(sample.traffic.conversation)
                if member is None:
                    break
                sampler = self._samplers[member.name]
                batches[sampler].append(attempt(sample, sampler))
                self._watch_for_slowness(sample, now)
            self._waiting.popleft()
        in_parts = [
            [(sampler, part) for part in parts(batch)] for sampler, batch in batches.items()
        ]
        for at_once in itertools.zip_longest(*in_parts):
            for sampler, part in filter(None, at_once):
                self._spawn(self._draw(sampler, part))

    async def _draw(
        self, sampler: Sampler, batch: Sequence[Attempt], *, is_hedge: bool = False
    ) -> None:
        """Have a batch drawn; what is not answered when the sampler dies goes elsewhere."""
        left = dict(enumerate(batch))
        items = [begun.item(is_hedge=is_hedge) for begun in batch]
        del batch
        try:
            stream = sampler.remote.stream("sample_many", items)
            del items
            async for answered in stream:
                self._take(sampler, left, answered)
            name = sampler.remote.name
            reason = ActorLostError(f"{name} left samples unanswered", actor=name)
        except ActorLostError as error:
            reason = error
        except TinkerError as error:
            for begun in left.values():
                if begun.close():
                    begun.sample.fail(error)
            return
        lost = [begun for begun in left.values() if begun.close()]
        if lost:
            self._lost(sampler)
            self._again(lost, reason)

    def _take(self, sampler: Sampler, left: dict[int, Attempt], answered: Answered) -> None:
        for number, outcome in answered.outcomes:
            begun = left.pop(number)
            if begun.close():
                self._settle(begun, outcome)
        sampler.member.losses = 0
        sampler.member.others = max(answered.load - sampler.member.own, 0)
        self.look_again()

    def _settle(self, begun: Attempt, outcome: Outcome) -> None:
        sample = begun.sample
        if sample.answer.done():
            return
        if outcome is None:
            begun.sampler.member.is_ending = True
            if not sample.attempts:
                self._submit(sample)
        elif isinstance(outcome, Exception):
            if not sample.attempts:  # else another sampler may still give the answer
                sample.answer.set_exception(outcome)
        else:
            sample.answer.set_result(outcome)
            if self._hedge is not None:
                self._hedge.answered(self._loop.time() - sample.asked_at)

    # --- losses ---------------------------------------------------------------------------------

    def _lost(self, sampler: Sampler) -> None:
        sampler.member.losses += 1
        sampler.member.others = 0
        sampler.member.is_ready = False
        if self._samplers.get(sampler.remote.name) is sampler:
            self._locate_later(sampler)

    def _again(self, lost: Sequence[Attempt], reason: ActorLostError) -> None:
        for begun in lost:
            sample = begun.sample
            sample.losses += 1
            if sample.attempts:  # another sampler draws it, too
                continue
            if sample.losses < MAX_LOSSES:
                self._submit(sample)
            else:
                message = f"{sample.losses} samplers were lost over a sample, at last: {reason}"
                sample.fail(ActorLostError(message, actor=reason.actor))

    def _locate_later(self, sampler: Sampler) -> None:
        if not sampler.is_located:
            sampler.is_located = True
            self._spawn(self._locate(sampler))

    async def _locate(self, sampler: Sampler) -> None:
        """Wait for a sign of life; then the sampler is given samples."""
        name, member = sampler.remote.name, sampler.member
        losses = member.losses
        try:
            while True:
                if losses > 1:
                    await asyncio.sleep(min(PAUSE_S * 2**losses, LONGEST_PAUSE_S))
                try:
                    member.node = (await sampler.remote.ping()).node
                    break
                except ActorLostError as error:
                    losses += 1
                    if sampler.remote.is_dead:
                        self._fleet.is_gone(name, error)
                        return
        except TinkerError as error:
            self._fleet.is_gone(name, error)
            return
        finally:
            sampler.is_located = False
        member.is_ready = True
        self._fleet.came_up(name, member.node)
        self.look_again()

    # --- second attempts and cancellations ------------------------------------------------------

    def _watch_for_slowness(self, sample: Sample, now: float) -> None:
        if self._hedge is not None and sample.num_attempts == 1 and is_repeatable(sample.request):
            self._hedge.sent(sample.key, now)
            self._plan_hedge()

    def _plan_hedge(self) -> None:
        wake_at = None if self._hedge is None else self._hedge.wake_at()
        if self._hedging is None and wake_at is not None:
            self._hedging = self._loop.call_at(wake_at, self._hedge_slow)

    def _hedge_slow(self) -> None:
        self._hedging = None
        batches: defaultdict[Sampler, list[Attempt]] = defaultdict(list)
        for key in self._hedge.due(self._loop.time()) if self._hedge is not None else ():
            sample = self._open.get(key)
            if sample is None or sample.answer.done() or not sample.attempts:
                continue
            slow = [begun.sampler.remote.name for begun in sample.attempts]
            member = self.choice.pick(but=slow)
            if member is not None:
                sampler = self._samplers[member.name]
                batches[sampler].append(attempt(sample, sampler))
        for sampler, batch in batches.items():
            self._spawn(self._draw(sampler, batch, is_hedge=True))
        self._plan_hedge()

    def _abandon(self, begun: Attempt) -> None:
        """Tell its sampler that nobody waits any more, together with others of this tick."""
        begun.close()
        if self._closed:
            return
        if not self._abandoned:
            self._loop.call_soon(self._cancel_abandoned)
        self._abandoned[begun.sampler].append(begun.key)

    def _cancel_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, defaultdict(list)
        for sampler, keys in abandoned.items():
            self._spawn(self._cancel(sampler, keys))

    async def _cancel(self, sampler: Sampler, keys: list[str]) -> None:
        with contextlib.suppress(TinkerError):  # a dead sampler draws nothing
            await sampler.remote.call("cancel", keys)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _closed() -> StaleHandleError:
    return StaleHandleError("the runtime was closed while the sample was under way")

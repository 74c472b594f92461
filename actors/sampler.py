"""Samples for callers anywhere on the cluster: batches in, results out in the order of completion.

Knows nothing of Ray or of who calls. Invariant: a batch yields each of its samples exactly once, as
a response, as an error or as one that was not begun.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from actors.border import portable
from actors.hosted import HostedSampling
from actors.pool_choice import MAX_CONVERSATIONS
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.errors import StaleHandleError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import record
from tinker_ray.types import SampleResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from actors.lease_keeper import Ledger
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.telemetry.carrier import Carrier
    from tinker_ray.types import RetryConfig
    from tinker_ray.wire.request import SampleRequest


AT_ONCE = 16
"""Samples of a batch that are begun in one turn of the event loop."""
MAX_UNWANTED = 4096
"""Cancelled samples that are remembered until they arrive; most have ended and never will."""


@dataclass(frozen=True, slots=True)
class SampleItem:
    """One sample of a batch; its number is its place there.

    Attributes:
        request: What to draw.
        retry: How lost samples are repeated.
        carrier: The trace that it belongs to.
        key: Names it when it is cancelled; empty for one that is not.
        traffic: Its kind.
        attempt: How often it was submitted to a sampler, this time included.
        is_hedge: Another sampler draws it, too.
    """

    request: SampleRequest
    retry: RetryConfig | None = None
    carrier: Carrier = field(default_factory=dict)
    key: str = ""
    traffic: Traffic = ORDINARY
    attempt: int = 1
    is_hedge: bool = False


Outcome: TypeAlias = SampleResponse | Exception | None
"""None for a sample that was not begun, because the sampler is to end."""
Outcomes: TypeAlias = list[tuple[int, Outcome]]


@dataclass(frozen=True, slots=True)
class Answered:
    """Some samples of a batch, as they are done.

    Attributes:
        outcomes: By number.
        load: Samples that the sampler has left, of all its callers.
    """

    outcomes: Outcomes
    load: int = 0


@dataclass(frozen=True, slots=True)
class SamplerState:
    """What a sampler says of itself.

    Attributes:
        node: Its Ray node.
        load: Samples that it has, of all its callers.
        waiting: Those among them that wait for a permit.
        conversations: Conversations that it has drawn for of late.
        drawn: Samples that ended here.
        resubmitted: Samples that came here from a sampler that was lost.
        hedged: Samples that came here because another sampler was slow.
        is_ending: It takes no new samples.
    """

    node: str
    load: int = 0
    waiting: int = 0
    conversations: int = 0
    drawn: int = 0
    resubmitted: int = 0
    hedged: int = 0
    is_ending: bool = False


class SamplerActor:
    """Draws samples from any sampling session of one session.

    Args:
        service: The session.
        ledger: Where permits are leased.
        name: Of the actor.
        node: Of its Ray node.
        link: The service; by default one is opened from the environment.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(
        self,
        service: ServiceSpec,
        ledger: Ledger,
        *,
        name: str = "sampler",
        node: str = "",
        link: Link | None = None,
    ) -> None:
        self._sampling = HostedSampling(
            service, ledger, kind="sampler", actor=name, node=node, link=link
        )
        self._node = node
        self._load = 0
        self._is_ending = False
        self._counts: Counter[str] = Counter()
        self._conversations: OrderedDict[str, None] = OrderedDict()
        self._drawing: dict[str, asyncio.Task[Outcome]] = {}
        self._unwanted: dict[str, None] = {}

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"SamplerActor({self._sampling!r})"

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Answered]:
        """Draw the samples of a batch and yield them as they complete."""
        if self._is_ending:
            yield Answered([(number, None) for number in range(len(batch))], self._load)
            return
        start_ns = time.time_ns()
        self._count(batch)
        done: Outcomes = []
        some_done = asyncio.Event()

        def ended(number: int, key: str, task: asyncio.Task[Outcome]) -> None:
            self._drawing.pop(key, None)
            self._load -= 1
            self._counts["drawn"] += 1
            done.append((number, _unwanted() if task.cancelled() else task.result()))
            some_done.set()

        self._load += len(batch)
        tasks: list[asyncio.Task[Outcome]] = []
        try:
            for number, item in enumerate(batch):
                task = asyncio.create_task(self._outcome(item))
                task.add_done_callback(partial(ended, number, item.key))
                tasks.append(task)
                if item.key:
                    self._drawing[item.key] = task
                if len(tasks) % AT_ONCE == 0:  # what is under way goes on meanwhile
                    await asyncio.sleep(0)
            num_left = len(tasks)
            while num_left:
                await some_done.wait()
                some_done.clear()
                finished, done = done, []
                num_left -= len(finished)
                yield Answered(finished, self._load)
        finally:
            self._load -= len(batch) - len(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._record(batch, start_ns)

    async def cancel(self, keys: Sequence[str]) -> None:
        """Stop drawing samples that nobody waits for any more, at the service, too.

        A call may overtake the one that it is about: what has not arrived is not begun.
        """
        for key in keys:
            task = self._drawing.get(key)
            if task is not None:
                task.cancel()
            else:
                self._unwanted[key] = None
        while len(self._unwanted) > MAX_UNWANTED:
            del self._unwanted[next(iter(self._unwanted))]

    def state(self) -> SamplerState:
        """Say how this sampler is doing; thread-safe."""
        return SamplerState(
            self._node,
            self._load,
            self._sampling.waiting,
            len(self._conversations),
            is_ending=self._is_ending,
            **self._counts,
        )

    def retire(self) -> None:
        """Take no new samples from now on; thread-safe."""
        self._is_ending = True

    async def aclose(self) -> None:
        """Give the permits back and close the connections; idempotent."""
        await self._sampling.aclose()

    async def _outcome(self, item: SampleItem) -> Outcome:
        if item.key in self._unwanted:
            return _unwanted()
        try:
            return await self._sampling.sample(item.request, item.retry, item.carrier, item.traffic)
        except Exception as error:  # noqa: BLE001 - the border of an actor call
            return portable(error)

    def _count(self, batch: Sequence[SampleItem]) -> None:
        for item in batch:
            if item.is_hedge:
                self._counts["hedged"] += 1
            elif item.attempt > 1:
                self._counts["resubmitted"] += 1
            if item.traffic.conversation:
                self._conversations[item.traffic.conversation] = None
                self._conversations.move_to_end(item.traffic.conversation)
        while len(self._conversations) > MAX_CONVERSATIONS:
            self._conversations.popitem(last=False)

    def _record(self, batch: Sequence[SampleItem], start_ns: int) -> None:
        carrier = next((item.carrier for item in batch if item.carrier), None)
        attributes: dict[str, str | int] = {
            names.ACTOR: type(self).__name__,
            names.METHOD: "sample_many",
            names.NUM_REQUESTS: len(batch),
        }
        record(
            names.ACTOR_CALL,
            start_ns=start_ns,
            end_ns=time.time_ns(),
            attributes=attributes,
            carrier=carrier,
        )


def _unwanted() -> StaleHandleError:
    return StaleHandleError("nobody waited for the sample any more")

"""Samples for callers anywhere on the cluster: batches in, results out in the order of completion.

Knows nothing of Ray or of who calls. Invariant: a batch yields each of its samples exactly once, as
a response or as an error.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from actors.border import portable
from actors.hosted import HostedSampling
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
    """

    request: SampleRequest
    retry: RetryConfig | None = None
    carrier: Carrier = field(default_factory=dict)
    key: str = ""
    traffic: Traffic = ORDINARY


Outcome: TypeAlias = SampleResponse | Exception
Outcomes: TypeAlias = list[tuple[int, Outcome]]


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
        self._drawing: dict[str, asyncio.Task[None]] = {}
        self._unwanted: dict[str, None] = {}

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"SamplerActor({self._sampling!r})"

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Outcomes]:
        """Draw the samples of a batch and yield them as they complete."""
        start_ns = time.time_ns()
        done: Outcomes = []
        some_done = asyncio.Event()

        async def draw(number: int, item: SampleItem) -> None:
            outcome: Outcome = StaleHandleError("nobody waited for the sample any more")
            try:
                if item.key not in self._unwanted:
                    outcome = await self._outcome(item)
            finally:  # cancelled or not, it is answered
                self._drawing.pop(item.key, None)
                done.append((number, outcome))
                some_done.set()

        tasks = [asyncio.create_task(draw(number, item)) for number, item in enumerate(batch)]
        self._drawing.update(
            {item.key: task for item, task in zip(batch, tasks, strict=True) if item.key}
        )
        try:
            num_left = len(tasks)
            while num_left:
                await some_done.wait()
                some_done.clear()
                finished, done = done, []
                num_left -= len(finished)
                yield finished
        finally:
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

    async def aclose(self) -> None:
        """Give the permits back and close the connections; idempotent."""
        await self._sampling.aclose()

    async def _outcome(self, item: SampleItem) -> Outcome:
        try:
            return await self._sampling.sample(item.request, item.retry, item.carrier, item.traffic)
        except Exception as error:  # noqa: BLE001 - the border of an actor call
            return portable(error)

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

"""The session of a run: one heartbeat, and one place where the cluster's limits are divided.

Knows nothing of Ray. The session itself exists before this object and outlives a restart of it,
because its id is an argument. Invariant: a restarted one grants nothing until the leases of its
predecessor have run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.counters import Counters
from actors.journal import MemoryJournal, Record
from actors.shared_budget import SharedBudget
from tinker_ray.core.heartbeat import Heartbeat
from tinker_ray.core.reporter import Reporter
from tinker_ray.core.spending import NO_BUDGET
from tinker_ray.errors import ConfigurationError
from tinker_ray.limits import ClusterLimits
from tinker_ray.limits.permit import DISPATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.journal import Journal
    from actors.lease_keeper import HolderInfo
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.limits import Ruling, Spend, SpendClaim, SpendGrant, Statement
    from tinker_ray.types import (
        GetServerCapabilitiesResponse,
        LoraConfig,
        OptimizerConfig,
        TelemetryEvent,
    )

LISTEN_S = 60.0
"""How long a holder's question for news stays open."""
SHORTEST_ALARM_S = 0.05
ABSENT_S = 75.0
"""An actor that has not been heard of for so long is left out of the inventory."""


@dataclass
class _Listener:
    """A process that is to hear of what it did not ask for."""

    info: HolderInfo
    heard_at: float
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    news: Ruling | None = None


class SessionActor:
    """Owns what there is once in a run.

    Args:
        service: The session.
        restarted: Another object has kept this session before.
        limit: Sampling requests that may be under way at once on the whole cluster.
        journal: Where the counters are written down; by default it ends with this object.
        link: The service; by default one is opened from the environment.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(
        self,
        service: ServiceSpec,
        *,
        restarted: bool = False,
        limit: int = DISPATCH_LIMIT,
        journal: Journal | None = None,
        link: Link | None = None,
    ) -> None:
        self._link = link or service.open_link()
        self._session = service.open_session(self._link)
        self._clock = self._link.clock
        journal = journal or MemoryJournal()
        record = Record(journal, f"{service.session_id}/counters", self._clock)
        self._counters = Counters(record)
        record = Record(journal, f"{service.session_id}/budget", self._clock)
        self._budget = SharedBudget(service.budget, record) if service.budget else None
        now = self._clock.now()
        self._limits = ClusterLimits(limit, restarted_at=now if restarted else None)
        self._num_messages = 0
        self._listeners: dict[str, _Listener] = {}
        self._trainings: dict[str, float] = {}
        self._reporter = Reporter(self._link, service.session_id) if service.report else None
        if self._reporter is not None:
            self._link.events = self._reporter
            self._reporter.start(restarted=restarted)
        self._heartbeat = Heartbeat(self._link, service.session_id)
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show the session and its limits."""
        return f"SessionActor({self._session.session_id!r}, {self._limits!r})"

    # --- the session ----------------------------------------------------------------------------

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask which base models the service offers."""
        return await self._session.get_server_capabilities()

    async def create_model(
        self,
        model_seq_id: int,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a new model to train.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The creation failed.
        """
        return await self._session.create_model(
            model_seq_id, base_model, lora, user_metadata, optimizer_config
        )

    async def create_model_from_state(  # noqa: PLR0913 - what upstream offers
        self,
        model_seq_id: int,
        path: str,
        optimizer: bool,  # noqa: FBT001 - crosses the process border by position
        user_metadata: Mapping[str, str] | None = None,
        base_model: str | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a new model and load a checkpoint into it.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The load failed.
        """
        return await self._session.create_model_from_state(
            model_seq_id,
            path,
            optimizer=optimizer,
            user_metadata=user_metadata,
            base_model=base_model,
            optimizer_config=optimizer_config,
        )

    async def create_sampling_session(
        self, seq_id: int, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Open a sampling session and return its id.

        Raises:
            APIStatusError: The service refused.
        """
        return await self._session.create_sampling_session(
            seq_id, base_model=base_model, model_path=model_path
        )

    async def join_sampling_session(self, sampling_session_id: str) -> int:
        """Have the service number a further client of a sampling session.

        Raises:
            APIStatusError: The service refused.
        """
        return await self._session.join_sampling_session(sampling_session_id)

    async def create_custom_loss(
        self,
        custom_loss_seq_id: int,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
    ) -> str:
        """Upload a traced loss and return the id to use it by.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The service cannot run it.
        """
        return await self._session.create_custom_loss(custom_loss_seq_id, name, inputs, graph)

    async def tell(self, told: Sequence[TelemetryEvent], flush: bool = False) -> bool:  # noqa: FBT001, FBT002 - crosses the process border by position
        """Take in events for the service, from anywhere on the cluster.

        Returns:
            Whether there was room for them, and the service is to be told.
        """
        return self._reporter is not None and await self._reporter.tell(told, flush=flush)

    async def adopt_counters(self, counters: Mapping[str, int]) -> None:
        """Number what the session makes from now on, for several processes; idempotent.

        Args:
            counters: The next number of each kind, as the owner would have issued it.

        Raises:
            OSError: They could not be written down.
        """
        await self._counters.adopt(counters)

    async def take_number(self, kind: str) -> int:
        """Issue the next number of a kind of things.

        Raises:
            StaleHandleError: The session's owner is gone.
            OSError: It could not be written down.
        """
        return await self._counters.take(kind)

    async def finish(self, reason: str, detail: str | None = None) -> None:
        """End the heartbeat and tell the service that the session is over.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        await self._heartbeat.stop()
        await self._session.finish(reason, detail)

    # --- limits ---------------------------------------------------------------------------------

    async def state(self, statement: Statement) -> Ruling:
        """Answer what a process states, and tell the others what changes for them."""
        self._num_messages += 1
        ruling = self._limits.state(statement, self._clock.now())
        self._notify()
        return ruling

    async def listen(self, info: HolderInfo) -> Ruling | None:
        """Return when there is news for a process; None after some time without any."""
        self._num_messages += 1
        now = self._clock.now()
        listener = self._listeners.setdefault(info.holder, _Listener(info, now))
        listener.heard_at = now
        if listener.news is None:
            listener.woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_S):
                    await listener.woken.wait()
        listener.heard_at = self._clock.now()
        news, listener.news = listener.news, None
        return news

    # --- budget ---------------------------------------------------------------------------------

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim on the run's budget.

        Raises:
            ConfigurationError: There is none.
            OSError: The answer could not be written down.
        """
        return await self._required_budget().claim(claim)

    async def raise_budget(self, limit: Spend) -> None:
        """Allow the run to cost more; a repetition changes nothing.

        Raises:
            ConfigurationError: It has no budget.
            OSError: It could not be written down.
        """
        await self._required_budget().raise_to(limit)

    def _required_budget(self) -> SharedBudget:
        if self._budget is None:
            raise ConfigurationError(NO_BUDGET)
        return self._budget

    # --- inventory ------------------------------------------------------------------------------

    async def announce(self, model_id: str) -> None:
        """Note that a training actor lives; called from time to time."""
        self._trainings[model_id] = self._clock.now()

    async def inventory(self) -> dict[str, Any]:
        """Describe who takes part: processes that sample, models in training, limits and budget."""
        self._forget_absent()
        return {
            "session_id": self._session.session_id,
            "heartbeat": self._heartbeat.alive,
            "holders": [listener.info for listener in self._listeners.values()],
            "trainings": sorted(self._trainings),
            **self._limits.inventory(self._clock.now()),
            "messages": self._num_messages,
            "budget": self._budget.describe() if self._budget else None,
        }

    async def aclose(self) -> None:
        """Stop the heartbeat and close the connections; idempotent."""
        if self._alarm is not None:
            self._alarm.cancel()
        await self._heartbeat.stop()
        if self._reporter is not None:
            await self._reporter.aclose()
        await self._counters.close()
        if self._budget is not None:
            await self._budget.close()
        await self._link.aclose()

    def _notify(self) -> None:
        """Hand out what there is to say unasked, and plan when to look again."""
        now = self._clock.now()
        for ruling in self._limits.notices(now):
            listener = self._listeners.get(ruling.holder)
            if listener is not None:
                listener.news = ruling.after(listener.news)
                listener.woken.set()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wake_at = self._limits.wake_at
        if not math.isinf(wake_at):
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(max(wake_at - now, SHORTEST_ALARM_S), self._notify)

    def _forget_absent(self) -> None:
        since = self._clock.now() - ABSENT_S
        for holder in [key for key, value in self._listeners.items() if value.heard_at < since]:
            del self._listeners[holder]
        for model in [key for key, heard_at in self._trainings.items() if heard_at < since]:
            del self._trainings[model]

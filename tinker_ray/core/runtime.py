"""The whole SDK in this process: the reference that the distributed runtime is checked against."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tinker_ray.core.admission import Admission
from tinker_ray.core.connection import connect, open_link
from tinker_ray.core.flags import FlagsRefresh
from tinker_ray.core.heartbeat import Heartbeat
from tinker_ray.core.registry import RegistryCore
from tinker_ray.core.reporter import Reporter
from tinker_ray.core.sampling import CLONE_STRIDE, SamplingCore
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.core.spending import NO_BUDGET, LocalSpend
from tinker_ray.core.training import TrainingCore
from tinker_ray.errors import ConfigurationError, TinkerError
from tinker_ray.limits import ByteBudget, LocalLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.budget import Budget
    from tinker_ray.config import Settings
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.link import Link
    from tinker_ray.core.port import NumberKind
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.core.spending import Spending
    from tinker_ray.limits import Spend

logger = logging.getLogger(__name__)

FINISH_S = 10.0
"""How long closing waits for a service that does not answer; its session then expires."""


def sampling_core(
    link: Link,
    *,
    clone: int = 0,
    spending: Spending | None = None,
    limits: LocalLimits | None = None,
) -> SamplingCore:
    """Make a sampling core for a process that has the limits for itself."""
    bytes_left = ByteBudget(link.flags.sample_bytes)
    admission = Admission(limits or LocalLimits(), link.clock, bytes_left)
    return SamplingCore(link, admission, clone=clone, spending=spending)


class LocalRuntime:
    """A session with everything behind it in this process. Made by :meth:`open`."""

    def __init__(
        self,
        link: Link,
        session: SessionCore,
        reporter: Reporter | None = None,
        *,
        clone: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self._spend = None if budget is None else LocalSpend(budget)
        self.session_id = session.session_id
        self.flags = session.flags
        self.session = session
        spending = None if self._spend is None else self._spend.open(link)
        self.sampling = sampling_core(link, clone=clone, spending=spending)
        self.registry = RegistryCore(link)
        self.reporter = link.events = reporter
        if reporter is not None:
            reporter.start()
        self._link = link
        self._heartbeat = Heartbeat(link, session.session_id)
        self._refresh = FlagsRefresh(link)
        self._refresh.start()
        self._trainings: list[TrainingCore] = []
        self._numbers: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
        self._is_owner = clone == 0
        self._closed = False

    @classmethod
    async def open(
        cls,
        settings: Settings,
        user_metadata: Mapping[str, Any] | None = None,
        *,
        display_name: str | None = None,
    ) -> LocalRuntime:
        """Connect, learn what the service can do, and open a session.

        Raises:
            ConfigurationError: There is no API key.
            APIError: The service refused or could not be reached.
        """
        link = await connect(settings)
        try:
            session_id = await create_session(
                link,
                tags=settings.tags,
                user_metadata=user_metadata,
                project_id=settings.project_id,
                display_name=display_name,
            )
        except BaseException:
            await link.aclose()
            raise
        reporter = Reporter(link, session_id) if settings.report else None
        return cls(link, SessionCore(link, session_id), reporter, budget=settings.budget)

    @classmethod
    def join(cls, settings: Settings, session_id: str, flags: ServerFlags) -> LocalRuntime:
        """Take part in a session that another process has opened, to sample in it.

        Its heartbeat keeps the session alive, too; closing it does not finish the session.

        Args:
            settings: The service, and this process's own credential.
            session_id: The session.
            flags: What the service wants, as the other process was told.

        Raises:
            ConfigurationError: There is no credential.
        """
        link = open_link(settings, flags)
        return cls(link, SessionCore(link, session_id), clone=1 + secrets.randbelow(CLONE_STRIDE))

    def __repr__(self) -> str:
        """Show the session."""
        return f"LocalRuntime({self.session_id!r})"

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things.

        Raises:
            ConfigurationError: The session is another process's, which issues its numbers.
        """
        if not self._is_owner:
            message = (
                f"session {self.session_id} belongs to another process: make a ServiceClient of "
                "this process's own, or run on a Ray cluster, where sessions can be shared"
            )
            raise ConfigurationError(message)
        return next(self._numbers[kind])

    async def raise_budget(self, limit: Spend) -> None:
        """Allow the samples of the session to cost more.

        Raises:
            ConfigurationError: It has no budget.
        """
        if self._spend is None:
            raise ConfigurationError(NO_BUDGET)
        self._spend.ledger.raise_to(limit)

    def reference(self, *, creates: bool) -> None:
        """Return None: nobody else reaches into this process."""

    async def open_training(self, model: ModelHandle) -> TrainingCore:
        """Make the one owner of a model's operations."""
        training = TrainingCore(self._link, model.model_id, first_seq=model.first_seq)
        self._trainings.append(training)
        return training

    async def aclose(self, reason: str = "success", detail: str | None = None) -> None:
        """Finish the session and release everything, last opened first; idempotent."""
        if self._closed:
            return
        self._closed = True
        for training in reversed(self._trainings):
            await training.aclose()
        await self.sampling.aclose()
        await self._heartbeat.stop()
        await self._refresh.aclose()
        if self.reporter is not None:
            await self.reporter.aclose()
        try:
            if self._is_owner:
                async with asyncio.timeout(FINISH_S):
                    await self.session.finish(reason, detail)
        except (TinkerError, TimeoutError) as error:
            logger.warning("session %s could not be finished: %s", self.session_id, error)
        finally:
            await self._link.aclose()

"""The whole SDK in this process: the reference that the distributed runtime is checked against."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

from tinker_ray.core.admission import Admission
from tinker_ray.core.connection import connect
from tinker_ray.core.flags import FlagsRefresh
from tinker_ray.core.heartbeat import Heartbeat
from tinker_ray.core.registry import RegistryCore
from tinker_ray.core.reporter import Reporter
from tinker_ray.core.sampling import SamplingCore
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.core.training import TrainingCore
from tinker_ray.errors import TinkerError
from tinker_ray.limits.backoff import Backoff
from tinker_ray.limits.budget import ByteBudget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.config import Settings
    from tinker_ray.core.link import Link
    from tinker_ray.core.session import ModelHandle

logger = logging.getLogger(__name__)

FINISH_S = 10.0
"""How long closing waits for a service that does not answer; its session then expires."""


def sampling_core(link: Link, *, clone: int = 0, **admission: Any) -> SamplingCore:  # noqa: ANN401
    """Make a sampling core; keyword arguments go to :class:`Admission`."""
    backoff = Backoff(random.random)
    budget = ByteBudget(link.flags.sample_bytes)
    return SamplingCore(link, Admission(link.clock, backoff, budget, **admission), clone=clone)


class LocalRuntime:
    """A session with everything behind it in this process. Made by :meth:`open`."""

    def __init__(self, link: Link, session: SessionCore, reporter: Reporter | None = None) -> None:
        self.session_id = session.session_id
        self.flags = session.flags
        self.session = session
        self.sampling = sampling_core(link)
        self.registry = RegistryCore(link)
        self.reporter = link.events = reporter
        if reporter is not None:
            reporter.start()
        self._link = link
        self._heartbeat = Heartbeat(link, session.session_id)
        self._refresh = FlagsRefresh(link)
        self._refresh.start()
        self._trainings: list[TrainingCore] = []
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
        return cls(link, SessionCore(link, session_id), reporter)

    def __repr__(self) -> str:
        """Show the session."""
        return f"LocalRuntime({self.session_id!r})"

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
            async with asyncio.timeout(FINISH_S):
                await self.session.finish(reason, detail)
        except (TinkerError, TimeoutError) as error:
            logger.warning("session %s could not be finished: %s", self.session_id, error)
        finally:
            await self._link.aclose()

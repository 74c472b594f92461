"""What one process has of a session's actors: those that it started, and its own connections.

The session's owner and every process with copies of its clients have one. Invariant: what a crew
started ends with it, last started first.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

from actors import binding
from actors.handles.rollout import RolloutHandle
from actors.handles.training import TrainingHandle
from actors.worker_options import PLAIN_WORKER, WorkerOptions
from tinker_ray.core.connection import open_link
from tinker_ray.errors import TinkerError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from actors.handles.session import SessionHandle
    from actors.starting import Starter
    from tinker_ray.config import Settings
    from tinker_ray.core.link import Link
    from tinker_ray.core.session import ModelHandle

logger = logging.getLogger(__name__)


class Crew:
    """Training and rollout actors, and a link for what no actor may know.

    Args:
        starter: Starts the actors.
        to_session: The session's actor as other actors get it: by name.
        settings: The service, with this process's own credential.
    """

    def __init__(self, starter: Starter, to_session: SessionHandle, settings: Settings) -> None:
        self._starter = starter
        self._to_session = to_session
        self._settings = settings
        self._training_numbers = itertools.count()
        self._rollout_numbers = itertools.count()
        self._trainings: list[TrainingHandle] = []
        self._rollouts: list[RolloutHandle] = []
        self._link: Link | None = None

    async def link(self) -> Link:
        """Return connections of this process's own to the service.

        Raises:
            ConfigurationError: This process has no API key.
        """
        if self._link is None:
            self._link = open_link(self._settings, self._starter.service.flags)
        return self._link

    def open_training(self, model: ModelHandle) -> TrainingHandle:
        """Start the actor that owns a model's operations."""
        remote = self._starter.start(
            binding.TRAINING,
            f"training-{next(self._training_numbers)}",
            self._starter.service,
            model,
            self._to_session,
        )
        return self._kept(TrainingHandle(remote, model, self.link))

    def attach_training(self, model: ModelHandle, actor: str) -> TrainingHandle:
        """Take part in the training of a model whose actor another process started."""
        remote = self._starter.find(actor)
        return self._kept(TrainingHandle(remote, model, self.link, is_copy=True))

    async def open_rollout(
        self, number: int, worker: WorkerOptions = PLAIN_WORKER
    ) -> RolloutHandle:
        """Start the rollout actor of a number that is not used twice.

        Args:
            number: For its name.
            worker: What it is given.

        Raises:
            ActorLostError: It could not be started.
            ConfigurationError: There is no API key on its node, or the setup hook failed.
        """
        name = f"rollout-{number}-{next(self._rollout_numbers)}"
        remote = self._starter.start(
            binding.ROLLOUT,
            name,
            self._starter.service,
            self._to_session,
            name,
            worker.setup,
            worker.threads,
            worker.far_bytes,
            num_cpus=self._starter.options.rollout_cpus,
            worker=worker,
        )
        rollout = RolloutHandle(remote, self._forget_rollout)
        self._rollouts.append(rollout)
        try:
            await rollout.ready()
        except BaseException:
            await rollout.close()
            raise
        return rollout

    async def end_actors(self) -> None:
        """End the actors that were started, last first; idempotent."""
        await _all(rollout.close() for rollout in list(self._rollouts))
        await _all(training.aclose() for training in reversed(self._trainings))

    async def aclose(self) -> None:
        """Close the connections, too; idempotent."""
        await self.end_actors()
        if self._link is not None:
            await self._link.aclose()

    def _kept(self, training: TrainingHandle) -> TrainingHandle:
        self._trainings.append(training)
        return training

    def _forget_rollout(self, rollout: RolloutHandle) -> None:
        if rollout in self._rollouts:
            self._rollouts.remove(rollout)


async def _all(closings: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Close several things at once; one that fails keeps no other from closing."""
    for outcome in await asyncio.gather(*closings, return_exceptions=True):
        if isinstance(outcome, TinkerError):
            logger.warning("an actor did not close: %s", outcome)
        elif isinstance(outcome, BaseException):
            raise outcome

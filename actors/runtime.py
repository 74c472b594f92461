"""A session on the cluster: the same operations as :class:`tinker_ray.core.runtime.LocalRuntime`.

Owns the actors of its session, whose names hold the session's id, so that any number of runtimes
fit into one cluster. Invariant: the actors end with the runtime, at the latest with its process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray

from actors import binding
from actors.handles.checkpoint import CheckpointHandle
from actors.handles.remote import Patience, RemoteActor
from actors.handles.rollout import RolloutHandle
from actors.handles.sampler import SamplerPoolHandle
from actors.handles.session import SessionHandle
from actors.handles.training import TrainingHandle
from actors.service import ServiceSpec, check_reach
from tinker_ray.config import telemetry_environment
from tinker_ray.core.connection import connect, open_link
from tinker_ray.core.runtime import FINISH_S
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.errors import ActorLostError, APIError, ConfigurationError, TinkerError
from tinker_ray.limits.permit import DISPATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from tinker_ray.config import Settings
    from tinker_ray.core.session import ModelHandle

logger = logging.getLogger(__name__)

DRAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How many actors, and what they take.

    Attributes:
        min_samplers: Sampler actors at least.
        max_samplers: At most; in between, one per node.
        num_cpus: Logical CPUs of an actor that only waits for the network.
        rollout_cpus: Logical CPUs of a rollout actor.
        permits: Sampling requests under way at once on the whole cluster.
        patience: How long to believe in actors that do not answer.
    """

    min_samplers: int = 1
    max_samplers: int = 8
    num_cpus: float = 0.05
    rollout_cpus: float = 0.1
    permits: int = DISPATCH_LIMIT
    patience: Patience = field(default_factory=Patience)


class ClusterRuntime:
    """A session with everything behind it on actors. Made by :meth:`open`, on one event loop."""

    def __init__(
        self, settings: Settings, service: ServiceSpec, options: ClusterOptions, namespace: str
    ) -> None:
        self.session_id = service.session_id
        self.flags = service.flags
        self._settings = settings
        self._service = service
        self._options = options
        self._namespace = namespace
        self._training_numbers = itertools.count()
        self._rollout_numbers = itertools.count()
        self._trainings: list[TrainingHandle] = []
        self._rollouts: list[RolloutHandle] = []
        self._closing: asyncio.Task[None] | None = None
        session = self._start(binding.SESSION, "session", service, options.permits)
        self.session = SessionHandle(session)
        self._to_session = SessionHandle(
            RemoteActor(session.name, namespace, patience=options.patience)
        )
        """The session's handle as other actors get it: by name."""
        self.sampling = SamplerPoolHandle(
            [self._start_sampler(number) for number in range(self._num_samplers())], _own_node()
        )
        self.registry = CheckpointHandle(
            lambda: self._start(binding.CHECKPOINT, "checkpoint", service)
        )

    @property
    def reporter(self) -> SessionHandle | None:
        """What tells the service of events; None if it is not to be told."""
        return self.session if self._settings.report else None

    def __repr__(self) -> str:
        """Show the session."""
        return f"ClusterRuntime({self.session_id!r})"

    @classmethod
    async def open(
        cls,
        settings: Settings,
        user_metadata: Mapping[str, Any] | None = None,
        *,
        options: ClusterOptions | None = None,
    ) -> ClusterRuntime:
        """Open a session and start its actors. This process has to be connected to Ray.

        Raises:
            ConfigurationError: There is no API key, here or on the nodes, or the nodes cannot reach
                an embedded engine on this machine's loopback interface.
            APIError: The service refused or could not be reached.
            ActorLostError: The session's actor could not be started.
        """
        if not ray.is_initialized():
            raise ConfigurationError(
                "this process is not connected to Ray: call tinker_ray.init() first"
            )
        check_reach(settings.base_url, {node["NodeManagerAddress"] for node in _nodes()})
        link = await connect(settings)
        try:
            session_id = await create_session(
                link,
                tags=settings.tags,
                user_metadata=user_metadata,
                project_id=settings.project_id,
            )
        finally:
            await link.aclose()
        service = ServiceSpec.of(settings, session_id, link.flags)
        namespace = ray.get_runtime_context().namespace
        runtime = cls(settings, service, options or ClusterOptions(), namespace)
        try:
            await runtime.session.remote.ping()
        except BaseException:
            await runtime.aclose("errored", "the actors could not be started")
            raise
        return runtime

    async def open_training(self, model: ModelHandle) -> TrainingHandle:
        """Start the actor that owns a model's operations."""
        remote = self._start(
            binding.TRAINING,
            f"training-{next(self._training_numbers)}",
            self._service,
            model,
            self._to_session,
        )
        training = TrainingHandle(remote, model.first_seq)
        self._trainings.append(training)
        return training

    async def open_rollout(self, number: int) -> RolloutHandle:
        """Start the rollout actor of a number that is not used twice; a pool's ``open_worker``.

        Raises:
            ActorLostError: It could not be started.
            ConfigurationError: There is no API key on its node.
        """
        name = f"rollout-{number}-{next(self._rollout_numbers)}"
        remote = self._start(
            binding.ROLLOUT,
            name,
            self._service,
            self._to_session,
            name,
            num_cpus=self._options.rollout_cpus,
        )
        rollout = RolloutHandle(remote, self._forget_rollout)
        self._rollouts.append(rollout)
        try:
            await rollout.ready()
        except BaseException:
            await rollout.close()
            raise
        return rollout

    async def aclose(self, reason: str = "success", detail: str | None = None) -> None:
        """Finish the session and end every actor, in the reverse order of opening; idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(reason, detail))
        await asyncio.shield(self._closing)

    async def _close(self, reason: str, detail: str | None) -> None:
        await _all(rollout.close() for rollout in list(self._rollouts))
        await _all(training.aclose() for training in reversed(self._trainings))
        await self.registry.aclose(drain_s=DRAIN_S)
        await self.sampling.aclose()
        await self._finish(reason, detail)
        await self.session.remote.aclose(drain_s=DRAIN_S)

    async def _finish(self, reason: str, detail: str | None) -> None:
        try:
            try:
                async with asyncio.timeout(FINISH_S):
                    await self.session.finish(reason, detail)
            except (ActorLostError, ConfigurationError):
                await self._finish_from_here(reason, detail)
        except (APIError, TimeoutError) as error:
            logger.warning("session %s could not be finished: %s", self.session_id, error)

    async def _finish_from_here(self, reason: str, detail: str | None) -> None:
        """Finish the session without its actor, which is gone already."""
        link = open_link(self._settings, self.flags)
        try:
            session = SessionCore(link, self.session_id)
            async with asyncio.timeout(FINISH_S):
                await session.finish(reason, detail)
        finally:
            await link.aclose()

    def _num_samplers(self) -> int:
        nodes = [node for node in _nodes() if node["Resources"].get("CPU", 0) > 0]
        return max(self._options.min_samplers, min(self._options.max_samplers, len(nodes)))

    def _start_sampler(self, number: int) -> RemoteActor:
        name = f"sampler-{number}"
        return self._start(binding.SAMPLER, name, self._service, self._to_session, name)

    def _forget_rollout(self, rollout: RolloutHandle) -> None:
        if rollout in self._rollouts:
            self._rollouts.remove(rollout)

    def _start(
        self,
        actor_class: Any,  # noqa: ANN401 - Ray's
        name: str,
        *arguments: Any,  # noqa: ANN401 - of the plain class
        num_cpus: float | None = None,
        **placement: Any,  # noqa: ANN401 - Ray's
    ) -> RemoteActor:
        full_name = f"{self.session_id}/{name}"
        environment = telemetry_environment()
        if environment:
            placement["runtime_env"] = {"env_vars": environment}
        actor = actor_class.options(
            name=full_name,
            namespace=self._namespace,
            num_cpus=self._options.num_cpus if num_cpus is None else num_cpus,
            **({"scheduling_strategy": "SPREAD"} | placement),
        ).remote(*arguments)
        return RemoteActor(full_name, self._namespace, actor, self._options.patience)


def _nodes() -> list[dict[str, Any]]:
    nodes: Any = ray.nodes
    return [node for node in nodes() if node["Alive"]]


def _own_node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


async def _all(closings: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Close several things at once; one that fails keeps no other from closing."""
    for outcome in await asyncio.gather(*closings, return_exceptions=True):
        if isinstance(outcome, TinkerError):
            logger.warning("an actor did not close: %s", outcome)
        elif isinstance(outcome, BaseException):
            raise outcome

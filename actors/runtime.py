"""A session on the cluster: the same operations as :class:`tinker_ray.core.runtime.LocalRuntime`.

Owns the actors of its session, whose names hold the session's id, so that any number of runtimes
fit into one cluster. Invariant: the actors end with the runtime, at the latest with its process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import ray

from actors import binding
from actors.crew import Crew
from actors.handles.checkpoint import CheckpointHandle
from actors.handles.sampler import SamplerPoolHandle
from actors.handles.session import SessionHandle
from actors.own_fleet import OwnFleet
from actors.pool_size import PoolBounds
from actors.service import ServiceSpec, check_reach
from actors.starting import ClusterOptions, Starter, living_nodes, node_cpus, own_node
from actors.worker_options import PLAIN_WORKER, WorkerOptions
from tinker_ray.budget import to_plain
from tinker_ray.core.connection import connect
from tinker_ray.core.runtime import FINISH_S
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.errors import ActorLostError, ConfigurationError, TinkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.handles.remote import RemoteActor
    from actors.handles.rollout import RolloutHandle
    from actors.handles.training import TrainingHandle
    from tinker_ray.config import Settings
    from tinker_ray.core.port import NumberKind
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.limits import Spend

logger = logging.getLogger(__name__)

DRAIN_S = 5.0


class ClusterRuntime:
    """A session with everything behind it on actors. Made by :meth:`open`, on one event loop."""

    def __init__(
        self, settings: Settings, service: ServiceSpec, options: ClusterOptions, namespace: str
    ) -> None:
        self.session_id = service.session_id
        self.flags = service.flags
        self._loop = asyncio.get_running_loop()
        self._starter = Starter(service, namespace, options)
        session = self._starter.start(binding.SESSION, "session", service, options.permits)
        self._to_session = SessionHandle(self._starter.find(session.name))
        """The session's handle as other actors get it: by name."""
        self._crew = Crew(self._starter, self._to_session, settings)
        self.session = SessionHandle(session, here=self._session_from_here)
        self.sampling = self._open_pool(own_node())
        self.registry = CheckpointHandle(
            lambda: self._starter.start(binding.CHECKPOINT, "checkpoint", service), self._crew.link
        )
        self._closing: asyncio.Task[None] | None = None

    @property
    def reporter(self) -> SessionHandle | None:
        """What tells the service of events; None if it is not to be told."""
        return self.session if self._starter.service.report else None

    def __repr__(self) -> str:
        """Show the session."""
        return f"ClusterRuntime({self.session_id!r})"

    @classmethod
    async def open(
        cls,
        settings: Settings,
        user_metadata: Mapping[str, Any] | None = None,
        *,
        display_name: str | None = None,
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
        check_reach(settings.base_url, {node["NodeManagerAddress"] for node in living_nodes()})
        link = await connect(settings)
        try:
            session_id = await create_session(
                link,
                tags=settings.tags,
                user_metadata=user_metadata,
                project_id=settings.project_id,
                display_name=display_name,
            )
        finally:
            await link.aclose()
        service = ServiceSpec.of(settings, session_id, link.flags)
        namespace = ray.get_runtime_context().namespace
        runtime = cls(settings, service, options or ClusterOptions.of(settings.pool), namespace)
        try:
            await runtime.session.remote.ping()
        except BaseException:
            await runtime.aclose("errored", "the actors could not be started")
            raise
        return runtime

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things.

        Raises:
            ActorLostError: The session is shared, and its actor is dead for good.
        """
        return await self.session.number(kind)

    async def raise_budget(self, limit: Spend) -> None:
        """Allow the samples of the session to cost more, on the whole cluster.

        Raises:
            ConfigurationError: It has no budget.
            ActorLostError: The session's actor is dead for good.
        """
        await self.session.raise_budget(limit)

    async def open_training(self, model: ModelHandle) -> TrainingHandle:
        """Start the actor that owns a model's operations."""
        return self._crew.open_training(model)

    def attach_training(self, model: ModelHandle, actor: str) -> TrainingHandle:
        """Take part in the training of a model through its actor, as a further client of it."""
        return self._crew.attach_training(model, actor)

    async def open_rollout(
        self, number: int, worker: WorkerOptions = PLAIN_WORKER
    ) -> RolloutHandle:
        """Start the rollout actor of a number that is not used twice; a pool's ``open_worker``.

        Raises:
            ActorLostError: It could not be started.
            ConfigurationError: There is no API key on its node, or the setup hook failed.
        """
        return await self._crew.open_rollout(number, worker)

    def reference(self, *, creates: bool) -> dict[str, Any]:
        """Describe how other processes reach the actors; thread-safe.

        Args:
            creates: The others will make things in the session, too, and have to number them.
        """
        if creates:
            self._loop.call_soon_threadsafe(self.session.share)
        return {
            "address": ray.get_runtime_context().gcs_address,
            "namespace": self._starter.namespace,
            "budget": to_plain(self._starter.service.budget),
            "samplers": list(self.sampling.samplers),
            "hedge_after_s": self._starter.options.hedge_after_s,
            "samples_per_sampler": self._starter.options.samples_per_sampler,
        }

    async def aclose(self, reason: str = "success", detail: str | None = None) -> None:
        """Finish the session and end every actor, in the reverse order of opening; idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(reason, detail))
        await asyncio.shield(self._closing)

    async def _close(self, reason: str, detail: str | None) -> None:
        await self._crew.end_actors()
        await self.registry.aclose(drain_s=DRAIN_S)
        await self.sampling.aclose()
        await self._finish(reason, detail)
        await self._crew.aclose()
        await self.session.remote.aclose(drain_s=DRAIN_S)

    async def _finish(self, reason: str, detail: str | None) -> None:
        try:
            try:
                async with asyncio.timeout(FINISH_S):
                    await self.session.finish(reason, detail)
            except (ActorLostError, ConfigurationError):
                session = await self._session_from_here()
                async with asyncio.timeout(FINISH_S):
                    await session.finish(reason, detail)
        except (TinkerError, TimeoutError) as error:
            logger.warning("session %s could not be finished: %s", self.session_id, error)

    async def _session_from_here(self) -> SessionCore:
        """Return the session over connections of this process's own."""
        return SessionCore(await self._crew.link(), self.session_id)

    def _open_pool(self, node: str) -> SamplerPoolHandle:
        options = self._starter.options
        bounds = PoolBounds(
            least=options.min_samplers,
            most=options.max_samplers,
            carries=options.samples_per_sampler,
            idle_s=options.sampler_idle_s,
        )
        patience_s = options.patience.start_s
        fleet = OwnFleet(bounds, self._start_sampler, node_cpus, node, patience_s=patience_s)
        return SamplerPoolHandle(
            fleet, node, carries=bounds.carries, hedge_after_s=options.hedge_after_s
        )

    def _start_sampler(self, number: int, node: str | None) -> RemoteActor:
        name = f"sampler-{number}"
        service = self._starter.service
        return self._starter.start(
            binding.SAMPLER, name, service, self._to_session, name, node=node
        )

"""A session of another process, from a process that got a copy of one of its clients.

Calls the owner's actors by their names. What this process starts itself ends with it; the session
and everything else end with the owner.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.crew import Crew
from actors.found_fleet import FoundFleet
from actors.handles.sampler import SamplerPoolHandle
from actors.handles.session import SessionHandle
from actors.starting import ClusterOptions, Starter, living_actors, own_node
from actors.worker_options import PLAIN_WORKER, WorkerOptions
from tinker_ray.budget import from_plain
from tinker_ray.core.registry import RegistryCore
from tinker_ray.core.session import SessionCore

if TYPE_CHECKING:
    from actors.handles.rollout import RolloutHandle
    from actors.handles.training import TrainingHandle
    from actors.service import ServiceSpec
    from tinker_ray.config import Settings
    from tinker_ray.core.port import NumberKind
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.limits import Spend


class AttachedRuntime:
    """The runtime of another process's session. Made by :meth:`attach`, on one event loop."""

    def __init__(self, service: ServiceSpec, reference: dict[str, Any], crew: Crew) -> None:
        self.session_id = service.session_id
        self.flags = service.flags
        self._report = service.report
        self._reference = reference
        self._crew = crew
        starter = Starter(service, reference["namespace"], ClusterOptions())
        self.session = SessionHandle(
            starter.find(starter.full_name("session")), here=self._session_from_here, is_copy=True
        )
        self.sampling = SamplerPoolHandle(
            FoundFleet(
                reference["samplers"],
                starter.find,
                partial(living_actors, starter.namespace),
                session=starter.full_name("session"),
                prefix=starter.full_name("sampler-"),
            ),
            own_node(),
            carries=reference["samples_per_sampler"],
            hedge_after_s=reference["hedge_after_s"],
            is_copy=True,
        )
        self.registry = _Registry(crew)
        self._closed = False

    @property
    def reporter(self) -> SessionHandle | None:
        """What tells the service of events; None if it is not to be told."""
        return self.session if self._report else None

    def __repr__(self) -> str:
        """Show the session."""
        return f"AttachedRuntime({self.session_id!r})"

    @classmethod
    async def attach(
        cls, service: ServiceSpec, settings: Settings, reference: dict[str, Any]
    ) -> AttachedRuntime:
        """Reach a session's actors. This process has to be connected to the same cluster.

        Args:
            service: The session.
            settings: The service, with this process's own credential.
            reference: As :meth:`actors.runtime.ClusterRuntime.reference` describes it.
        """
        service = replace(service, budget=from_plain(reference["budget"]))
        prefix = f"{secrets.token_hex(4)}-"
        starter = Starter(service, reference["namespace"], ClusterOptions(), prefix)
        to_session = SessionHandle(starter.find(starter.full_name("session")))
        return cls(service, reference, Crew(starter, to_session, settings))

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things.

        Raises:
            ActorLostError: The session's owner is gone.
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
        """Start the actor that owns a model's operations; it ends with this process."""
        return self._crew.open_training(model)

    def attach_training(self, model: ModelHandle, actor: str) -> TrainingHandle:
        """Take part in the training of a model through its actor."""
        return self._crew.attach_training(model, actor)

    async def open_rollout(
        self, number: int, worker: WorkerOptions = PLAIN_WORKER
    ) -> RolloutHandle:
        """Start a rollout actor; it ends with this process.

        Raises:
            ActorLostError: It could not be started.
        """
        return await self._crew.open_rollout(number, worker)

    def reference(self, *, creates: bool) -> dict[str, Any]:  # noqa: ARG002 - shared already
        """Describe how other processes reach the actors: as this one does."""
        return self._reference

    async def aclose(self, reason: str = "success", detail: str | None = None) -> None:  # noqa: ARG002
        """Let go of the session, which goes on, and end what this process started; idempotent."""
        if not self._closed:
            self._closed = True
            await self.sampling.aclose()
            await self._crew.aclose()
            await self.session.remote.let_go()

    async def _session_from_here(self) -> SessionCore:
        return SessionCore(await self._crew.link(), self.session_id)


class _Registry:
    """REST calls over this process's own connections: they belong to no session."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of :class:`RegistryCore` by name."""
        return await RegistryCore(await self._crew.link()).call(name, arguments)

"""The plain classes as Ray actors: the only place that calls ``ray.remote``.

A shell around each class runs its methods by name, in a span and with portable errors, and answers
questions about the process in a concurrency group of their own. Ray repeats no call by itself
(``max_task_retries=0``): what is done again is decided by the handles.
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import ray
from ray.experimental import internal_kv

from actors.border import portable
from actors.checkpoint import CheckpointActor
from actors.env_threads import MAX_THREADS
from actors.rollout import RolloutActor
from actors.sampler import SamplerActor
from actors.session import SessionActor
from actors.shipping import Shipment, Shipped, Shipper
from actors.task import TaskActor
from actors.training import SLOTS, TrainingActor
from actors.worker_options import Setup, run_setup
from tinker_ray.core.sdk_method import carried
from tinker_ray.errors import TinkerError
from tinker_ray.rollouts.far import FAR_BYTES
from tinker_ray.telemetry import export, names, told_meters
from tinker_ray.telemetry.log import start_log
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from actors.lease_keeper import Ledger
    from actors.sampler import SamplerState
    from actors.service import ServiceSpec
    from actors.training import Inventory
    from tinker_ray.core.session import ModelHandle

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
"""How long an actor takes at most to close; then it is killed."""


class ClusterJournal:
    """A journal in the cluster's own key-value store, which lives as long as the cluster."""

    async def load(self, key: str) -> bytes | None:
        """Return what was stored last."""
        kept: bytes | None = await self._ask(
            lambda: internal_kv._internal_kv_get(_kept(key))  # noqa: SLF001
        )
        return kept

    async def store(self, key: str, value: bytes) -> None:
        """Keep a value.

        Raises:
            OSError: The store did not answer.
        """
        await self._ask(lambda: internal_kv._internal_kv_put(_kept(key), value))  # noqa: SLF001

    async def drop(self, key: str) -> None:
        """Forget a value."""
        await self._ask(lambda: internal_kv._internal_kv_del(_kept(key)))  # noqa: SLF001

    @staticmethod
    async def _ask(question: Callable[[], Any]) -> Any:  # noqa: ANN401 - of Ray's store
        try:
            return await asyncio.to_thread(question)
        except ray.exceptions.RayError as error:
            raise OSError(str(error)) from None


def _kept(key: str) -> bytes:
    return f"tinker-ray/{key}".encode()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor's process runs."""

    node: str
    pid: int


class Shell(ABC):
    """What every actor has around its plain class."""

    component: ClassVar[str]

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - of the plain class
        start_log()
        export.start_export(self.component)
        self._loop = asyncio.get_running_loop()
        self._actor: Any = None
        self._failure: TinkerError | None = None
        try:
            self._actor = self.build(*arguments)
        except TinkerError as error:
            self._failure = error

    @abstractmethod
    def build(self, *arguments: Any) -> Any:  # noqa: ANN401
        """Make the plain object; a ``TinkerError`` is what every call will raise."""

    async def call(
        self, method: str, arguments: tuple[Any, ...], carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401
        """Run a method of the plain object."""
        attributes = {names.ACTOR: type(self).__name__, names.METHOD: method}
        with carried(carrier), span(names.ACTOR_CALL, attributes=attributes, carrier=carrier):
            try:
                return await getattr(self._living(), method)(*arguments)
            except Exception as error:  # noqa: BLE001 - the border
                raise portable(error) from None

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncIterator[Any]:
        """Run a method of the plain object that yields."""
        try:
            async for item in getattr(self._living(), method)(*arguments):
                yield item
        except Exception as error:  # noqa: BLE001 - the border
            raise portable(error) from None

    @ray.method(concurrency_group="control")
    async def ping(self) -> Place:
        """Tell that the process lives, and where; fails as every call does if it cannot work."""
        self._living()
        return Place(ray.get_runtime_context().get_node_id(), os.getpid())

    @ray.method(concurrency_group="control")
    async def describe(self) -> str:
        """Show the plain object, for people."""
        return repr(self._actor)

    @ray.method(concurrency_group="control")
    async def drain(self) -> object:
        """Close the plain object, export what is left of the spans, give what is left to tell."""
        if self._actor is not None:
            closing = asyncio.run_coroutine_threadsafe(self._actor.aclose(), self._loop)
            try:
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.wrap_future(closing)
            except TimeoutError:
                logger.warning("%r did not close within %g s", self._actor, CLOSE_S)
        await asyncio.to_thread(export.flush)
        return self.left()

    def left(self) -> object:
        """Give what is left to tell at the end."""
        return None

    def _living(self) -> Any:  # noqa: ANN401
        if self._failure is not None:
            raise self._failure
        return self._actor


class SessionShell(Shell):
    """:class:`SessionActor` in its process."""

    component = "session"

    def build(self, service: ServiceSpec, limit: int) -> SessionActor:
        """Make the plain object; a restart adopts the session."""
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        return SessionActor(service, restarted=restarted, limit=limit, journal=ClusterJournal())


class SamplerShell(Shell):
    """:class:`SamplerActor` in its process."""

    component = "sampler"

    def build(self, service: ServiceSpec, ledger: Ledger, name: str) -> SamplerActor:
        """Make the plain object."""
        return SamplerActor(service, ledger, name=name, node=_node())

    @ray.method(concurrency_group="control")
    async def state(self) -> SamplerState:
        """Say how the sampler is doing, however many batches it has."""
        state: SamplerState = self._living().state()
        return state

    @ray.method(concurrency_group="control")
    async def retire(self) -> None:
        """Have the sampler take no new samples."""
        self._living().retire()


class TrainingShell(Shell):
    """:class:`TrainingActor` in its process."""

    component = "training"

    def build(
        self, service: ServiceSpec, model: ModelHandle, inventory: Inventory
    ) -> TrainingActor:
        """Make the plain object."""
        return TrainingActor(service, model, inventory, journal=ClusterJournal())


class CheckpointShell(Shell):
    """:class:`CheckpointActor` in its process."""

    component = "checkpoint"

    def build(self, service: ServiceSpec) -> CheckpointActor:
        """Make the plain object."""
        return CheckpointActor(service)


class RolloutShell(Shell):
    """:class:`RolloutActor` in its process."""

    component = "rollout"

    def build(  # noqa: PLR0913 - what Ray passes by position
        self,
        service: ServiceSpec,
        ledger: Ledger,
        name: str,
        setup: Setup | None = None,
        threads: int = MAX_THREADS,
        far_bytes: int | None = FAR_BYTES,
    ) -> RolloutActor:
        """Make the plain object, after what the user wants done first."""
        self._shipper = Shipper(name)
        run_setup(setup, f"the rollout actor {name} on node {_node()}")
        told_meters.install(self._shipper.meters)  # unless the hook chose another provider
        return RolloutActor(
            service, ledger, name=name, node=_node(), threads=threads, far_bytes=far_bytes
        )

    async def call(
        self, method: str, arguments: tuple[Any, ...], carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401
        """Run a method that gives two things; what was measured meanwhile comes with the first."""
        head, rest = await super().call(method, arguments, carrier)
        shipment = await self._shipper.fetch_all()
        return (Shipped(head, shipment) if shipment else head), rest

    def left(self) -> Shipment:
        """Give what was measured since the last answer."""
        return self._shipper.fetch()


class TaskShell(Shell):
    """:class:`TaskActor` in its process."""

    component = "executor"

    def build(self, name: str, setup: Setup | None, threads: int, log_level: int) -> TaskActor:
        """Make the plain object, after what the user wants done first."""
        dumps = ray.cloudpickle.dumps
        actor = TaskActor(
            name, node=_node(), threads=threads, log_level=log_level, dumps=dumps, setup=setup
        )
        told_meters.install(actor.shipper.meters)  # unless the hook chose another provider
        return actor


def _node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _bind(shell: type[Shell], *, max_concurrency: int, max_restarts: int) -> Any:  # noqa: ANN401
    remote: Any = ray.remote  # its annotations leave options out
    return remote(
        max_restarts=max_restarts,
        max_task_retries=0,
        max_concurrency=max_concurrency,
        concurrency_groups={"control": 8},
    )(shell)


FOR_EVER = -1

SESSION = _bind(SessionShell, max_concurrency=2000, max_restarts=FOR_EVER)
"""Every permit holder keeps one call open at it."""
SAMPLER = _bind(SamplerShell, max_concurrency=1000, max_restarts=FOR_EVER)
TRAINING = _bind(TrainingShell, max_concurrency=SLOTS, max_restarts=FOR_EVER)
CHECKPOINT = _bind(CheckpointShell, max_concurrency=100, max_restarts=FOR_EVER)
ROLLOUT = _bind(RolloutShell, max_concurrency=1000, max_restarts=0)
"""A lost one is replaced by its pool, which runs its groups elsewhere."""
TASK = _bind(TaskShell, max_concurrency=1000, max_restarts=0)
"""A lost one is replaced by its executor."""

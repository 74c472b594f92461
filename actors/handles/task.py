"""A worker for tasks on the cluster, as an executor holds it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import ray

from actors import binding
from actors.handles.remote import RemoteActor
from tinker_ray.errors import ActorLostError, TinkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.shipping import Shipment
    from actors.task import Outcome, Task
    from actors.worker_options import WorkerOptions

DRAIN_S = 3.0
NUM_CPUS = 0.1
"""Logical CPUs of a worker if nothing is said: functions may wait more than they compute."""


class TaskHandle:
    """Runs tasks on one worker. Belongs to the event loop that uses it.

    Args:
        remote: The actor.
        on_shipment: Gets what was logged and measured there.
    """

    def __init__(self, remote: RemoteActor, on_shipment: Callable[[Shipment], None]) -> None:
        self._remote = remote
        self._on_shipment = on_shipment
        self._listening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show the actor."""
        return f"TaskHandle({self._remote!r})"

    @property
    def name(self) -> str:
        """Of the actor."""
        return self._remote.name

    @classmethod
    async def start(
        cls,
        name: str,
        worker: WorkerOptions,
        log_level: int,
        on_shipment: Callable[[Shipment], None],
    ) -> TaskHandle:
        """Start a worker, and wait until it works.

        Raises:
            ActorLostError: It could not be started.
            ConfigurationError: The setup hook failed.
        """
        namespace: str = ray.get_runtime_context().namespace
        actor = binding.TASK.options(
            name=name,
            namespace=namespace,
            scheduling_strategy="SPREAD",
            **worker.ray_options(num_cpus=NUM_CPUS),
        ).remote(name, worker.setup, worker.threads, log_level)
        handle = cls(RemoteActor(name, namespace, actor), on_shipment)
        try:
            await handle._begin()
        except BaseException:
            await handle.close()
            raise
        handle._listening = asyncio.get_running_loop().create_task(handle._listen())
        return handle

    async def run(self, task: Task) -> Outcome:
        """Run a task; cancelling this stops it as far as it can be stopped.

        Raises:
            ActorLostError: The worker died over it.
        """
        try:
            outcome: Outcome = await self._remote.call("run", task, cancel=True)
        except ActorLostError:
            self._remote.kill()
            raise
        if outcome.shipment:
            self._on_shipment(outcome.shipment)
        return outcome

    async def close(self) -> None:
        """End the worker, once it has told what is left; idempotent."""
        if self._listening is not None:
            with contextlib.suppress(TinkerError, TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._remote.call("hush")
                    await asyncio.wait({self._listening})
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        await self._remote.aclose(drain_s=DRAIN_S)

    async def _begin(self) -> None:
        shipment: Shipment
        shipment, failure = await self._remote.call("begin")
        self._on_shipment(shipment)
        if failure is not None:
            raise failure

    async def _listen(self) -> None:
        """Fetch what tasks log and measure while they run."""
        with contextlib.suppress(TinkerError):  # whoever runs a task hears of the worker's death
            while True:
                shipment: Shipment = await self._remote.call("shipment", cancel=True)
                self._on_shipment(shipment)
                if shipment.is_last:
                    return

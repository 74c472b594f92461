from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from actors.worker_options import WorkerOptions
from tests.fakes.environment import CountingGroup
from tests.fakes.sampler import ScriptedSampler
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.rl.placement import BridgedWorker, PoolWorker, open_worker
from tinker_ray.rl.worker import LocalWorker
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    EnvGroupBuilder,
    RolloutParams,
    Sampler,
    TrajectoryGroup,
)

if TYPE_CHECKING:
    from tinker_ray.clients.session import ClientSession

ATTEMPT = Attempt(AttemptId(0, 0), RolloutParams())
ONE = ScriptedSampler(lambda *_: [1])


class FarWorker(LocalWorker):
    """Notes the event loop on which it is used."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.loops = [asyncio.get_running_loop()]

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        self.loops.append(asyncio.get_running_loop())
        return await super().run_group(builder, sampler, attempt)

    async def close(self) -> None:
        self.loops.append(asyncio.get_running_loop())


class ClusterLike:
    """A runtime that opens workers of its own."""

    def __init__(self) -> None:
        self.opened: list[FarWorker] = []
        self.options: list[WorkerOptions] = []

    async def open_rollout(self, number: int, worker: WorkerOptions) -> PoolWorker:
        self.options.append(worker)
        self.opened.append(FarWorker(number))
        return self.opened[-1]


class SessionOf:
    """A client session with a given runtime."""

    def __init__(self, runtime: object) -> None:
        self._runtime = runtime

    async def runtime(self) -> object:
        return self._runtime


def client_of(runtime: object) -> SamplingClient:
    return SamplingClient(cast("ClientSession", SessionOf(runtime)), "sampling-session", None)


async def test_a_worker_is_opened_beside_the_samplers_session_and_used_on_its_loop() -> None:
    runtime = ClusterLike()
    options = WorkerOptions(num_cpus=2)
    worker = await open_worker(client_of(runtime), 7, options)
    assert isinstance(worker, BridgedWorker)
    group = await worker.run_group(CountingGroup([1]), ONE, ATTEMPT)
    await worker.close()
    assert group.get_total_rewards() == [1.0, 1.0]
    [far] = runtime.opened
    assert [options] == runtime.options
    assert (far.number, len(far.loops), len(set(far.loops))) == (7, 3, 1)
    assert asyncio.get_running_loop() not in far.loops


async def test_without_a_cluster_the_worker_is_in_this_process() -> None:
    assert isinstance(await open_worker(client_of(object()), 0), LocalWorker)
    assert isinstance(await open_worker(ONE, 0), LocalWorker)

"""Environments raise and hang, workers are killed: each group is accounted for, and memory flat."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from actors.runtime import ClusterRuntime
from tests.bench.stub import stub_service
from tests.bench.stub_service import MODEL
from tests.fakes.cluster_session import OPTIONS
from tests.fakes.sampler import ScriptedSampler
from tests.fakes.unlucky import MortalWorker, UnluckyGroup
from tinker_ray.config import EMBEDDED_API_KEY, Settings
from tinker_ray.errors import ActorLostError
from tinker_ray.rl import DroppedGroup, LivePolicy, RolloutPool
from tinker_ray.rollouts import Pacing, RetryBudget, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from actors.handles.rollout import RolloutHandle
    from tinker_ray.rl import FinishedGroup
    from tinker_ray.rollouts import Sampler
    from tinker_ray.types import ModelInput, SampleResponse, SamplingParams

RAISES, HANGS, KILLS = 0.05, 0.02, 0.01
GROUPS_PER_STEP = 16
PACING = Pacing(GROUPS_PER_STEP, max_staleness=2, oversample=2)
RETRIES = RetryBudget(infrastructure=8)
MEGABYTES_MORE = 16
"""What allocators may keep while thousands of groups pass."""


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth_mb(samples: list[float]) -> float:
    """Compare the last fifth of a run with its second: the first is still filling its caches."""
    fifth = len(samples) // 5
    assert fifth > 0, f"{len(samples)} samples are too few"
    return median(samples[-fifth:]) - median(samples[fifth : 2 * fifth])


class Forgetful(ScriptedSampler):
    """Keeps no record of its calls."""

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        self.calls.clear()
        return await super().sample_async(prompt, num_samples, sampling_params)


class Trainer:
    """Takes groups, publishes a version after each step, and keeps the books."""

    def __init__(self, pool: RolloutPool, sampler: Sampler) -> None:
        self.pool = pool
        self.policy = LivePolicy(sampler)
        self.ended: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.staleness: Counter[int] = Counter()
        self.num_delivered = 0
        self.selected = 0
        self.memory_mb: list[float] = []

    def note_drop(self, drop: DroppedGroup) -> None:
        self.ended[drop.index] += 1
        self.reasons[drop.reason] += 1

    def take(self, group: FinishedGroup) -> None:
        self.ended[group.index] += 1
        self.staleness[self.policy.version - group.version] += 1
        self.num_delivered += 1
        if self.num_delivered % GROUPS_PER_STEP == 0:
            self.policy.publish(self.policy.sampler)
            account = self.pool.take_selection()
            self.selected += account.kept.groups + sum(cut.groups for cut in account.cut.values())
            self.memory_mb.append(resident_mb())

    def check(self, num_groups: int) -> None:
        account = self.pool.account
        last = self.pool.take_selection()
        self.selected += last.kept.groups + sum(cut.groups for cut in last.cut.values())
        assert account.dispatched == num_groups == self.selected
        assert account.dispatched == account.delivered + account.dropped.total()
        assert dict.fromkeys(range(num_groups), 1) == dict(self.ended)
        assert (self.num_delivered, self.reasons) == (account.delivered, account.dropped)
        assert max(self.staleness) <= PACING.max_staleness
        assert self.staleness == account.staleness
        assert set(account.retries) <= {"infrastructure", "environment", "timeout"}


def unlucky(count: int, size: int) -> Iterator[UnluckyGroup]:
    return (UnluckyGroup(number, size, RAISES, HANGS) for number in range(count))


async def run_here(num_groups: int, size: int, *, kills: float, seed: int) -> Trainer:
    luck = Random(seed)

    async def open_worker(_: Sampler, __: int) -> MortalWorker:
        return MortalWorker(kills, luck)

    pool = RolloutPool(
        2,
        groups_per_worker=16,
        retries=RETRIES,
        timeouts=Timeouts(step_s=0.5, group_s=20.0),
        open_worker=open_worker,
    )
    trainer = Trainer(pool, Forgetful(lambda _, row: [row]))
    async with pool:
        groups = pool.run(
            unlucky(num_groups, size),
            trainer.policy,
            pacing=PACING,
            on_drop=trainer.note_drop,
        )
        async for group in groups:
            trainer.take(group)
    trainer.check(num_groups)
    return trainer


async def test_each_group_is_accounted_for_whatever_breaks() -> None:
    trainer = await run_here(240, 4, kills=KILLS, seed=7)
    assert {"environment", "infrastructure"} <= set(trainer.pool.account.retries)


@pytest.mark.soak
@pytest.mark.timeout(400)
async def test_over_thousands_of_groups_the_law_holds_and_memory_is_flat() -> None:
    trainer = await run_here(5000, 8, kills=KILLS, seed=11)
    print(f"{trainer.pool.account}, memory {trainer.memory_mb[::30]} MB")  # noqa: T201 - the story
    assert growth_mb(trainer.memory_mb) < MEGABYTES_MORE


@asynccontextmanager
async def cluster_on_a_stub() -> AsyncIterator[tuple[ClusterRuntime, str]]:
    """Open a runtime and a sampling session on a service that has a process of its own."""
    with stub_service("--latency", "0.02", "--wire", "json") as url:
        settings = Settings.from_env(base_url=url, api_key=EMBEDDED_API_KEY)
        runtime = await ClusterRuntime.open(settings, options=OPTIONS)
        try:
            yield runtime, await runtime.session.create_sampling_session(0, base_model=MODEL)
        finally:
            await runtime.aclose()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
async def test_on_a_cluster_whose_workers_are_killed_the_law_holds_and_memory_is_flat() -> None:
    num_groups, luck = int(os.environ.get("ACCOUNTING_GROUPS", "5000")), Random(3)
    async with cluster_on_a_stub() as (runtime, session_id):

        class Client:
            sampling_session_id = session_id
            retry_config = None

        async def open_worker(_: object, number: int) -> RolloutHandle:
            return await runtime.open_rollout(number)

        client: Any = Client()
        pool = RolloutPool(
            2,
            groups_per_worker=16,
            retries=RETRIES,
            timeouts=Timeouts(step_s=0.5, group_s=60.0),
            open_worker=open_worker,
        )
        trainer, num_kills = Trainer(pool, client), 0
        async with pool:
            groups = pool.run(
                unlucky(num_groups, 8), trainer.policy, pacing=PACING, on_drop=trainer.note_drop
            )
            async for group in groups:
                trainer.take(group)
                rollouts = runtime._crew._rollouts
                if luck.random() < KILLS and len(rollouts) > 1:
                    with suppress(ActorLostError):  # killed before, and not replaced yet
                        os.kill((await rollouts[0]._remote.ping()).pid, signal.SIGKILL)
                        num_kills += 1
    trainer.check(num_groups)
    print(f"{num_kills} kills, {pool.account}, memory {trainer.memory_mb[::15]} MB")  # noqa: T201
    assert num_kills > 0
    assert growth_mb(trainer.memory_mb) < MEGABYTES_MORE

"""On real Ray: builders that fail, workers that die of one, a service that is broken."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.cluster_session import ClusterSession, cluster_session
from tests.fakes.environment import CountingEnv, CountingGroup
from tests.fakes.toy_service import ToyService
from tinker_ray.rl import RolloutPool
from tinker_ray.rollouts import RolloutsHaltedError
from tinker_ray.types import RetryConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.handles.rollout import RolloutHandle
    from tinker_ray.rl import DroppedGroup
    from tinker_ray.rollouts import Action, Env, StepResult

pytestmark = pytest.mark.usefixtures("ray_cluster")

HALT_AFTER = 5


class Client:
    """What a rollout handle needs of a sampling client; the service's failures are not repeated."""

    retry_config = RetryConfig(enable_retry_logic=False)

    def __init__(self, session: ClusterSession) -> None:
        self.sampling_session_id = session.sampling_session_id


@dataclass
class BreakableService(ToyService):
    """Fails every sample once it is broken."""

    is_broken: bool = False

    def _retrieve_future(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.is_broken:
            return 200, {"error": "no accelerator is left", "category": "server"}
        return super()._retrieve_future(body)


def pool_on(session: ClusterSession, **options: Any) -> RolloutPool:  # noqa: ANN401 - the pool's
    async def open_worker(_: object, number: int) -> RolloutHandle:
        return await session.runtime.open_rollout(number)

    return RolloutPool(1, groups_per_worker=4, open_worker=open_worker, **options)


class DeadlyEnv(CountingEnv):
    """Takes its process with it, as a library that crashes does."""

    async def step(self, action: Action) -> StepResult:
        os._exit(len(action))


@dataclass
class DeadlyGroup(CountingGroup):
    async def make_envs(self) -> Sequence[Env]:
        return [DeadlyEnv(self.prompt)]


async def test_a_group_that_workers_die_of_costs_none_of_those_beside_it() -> None:
    builders = [CountingGroup([number], num_turns=5) for number in range(6)]
    builders[2] = DeadlyGroup([2])
    builders[4] = CountingGroup([4], error=asyncio.CancelledError())
    async with cluster_session(ToyService(sample_s=0.02)) as session:
        client: Any = Client(session)
        async with pool_on(session, retries=1) as pool:
            groups = [group.index async for group in pool.run(builders, client)]
    assert [0, 1, 3, 5] == sorted(groups)
    assert {"deadly": 1, "environment": 1} == pool.account.dropped


async def test_a_poison_builder_costs_its_groups_only_and_a_broken_service_halts_the_run() -> None:
    service = BreakableService()
    async with cluster_session(service) as session:
        client: Any = Client(session)
        drops: list[DroppedGroup] = []
        builders = [
            CountingGroup([1], error=ValueError("poisoned") if number % 2 else None)
            for number in range(12)
        ]
        async with pool_on(session, halt_after=HALT_AFTER, window=1) as pool:
            groups = pool.run(builders, client, on_drop=drops.append)
            assert [0, 2, 4, 6, 8, 10] == [group.index async for group in groups]
            account = pool.account
            assert (12, 6, 0) == (account.dispatched, account.delivered, account.open)
            assert {"environment": 3, "quarantined": 3} == account.dropped
            assert {"environment": 3} == account.retries
            assert [1, 3, 5, 7, 9, 11] == [drop.index for drop in drops]
            assert [2, 2, 2, 0, 0, 0] == [drop.attempts for drop in drops]
            assert "poisoned" in account.details["environment"]

            service.is_broken = True
            groups = pool.run([CountingGroup([1])] * 12, client)
            with pytest.raises(RolloutsHaltedError, match="no accelerator is left") as halted:
                await anext(groups)
            account = pool.account
            assert HALT_AFTER == halted.value.failures
            assert f"{HALT_AFTER} failures in a row" in str(halted.value)
            assert (2, 0, 0) == (account.dispatched, account.delivered, account.open)
            assert {"infrastructure": 1, "halted": 1} == account.dropped  # four failures, and one
            assert "no accelerator is left" in account.details["halted"]

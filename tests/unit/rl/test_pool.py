from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from tests.fakes.blocking import MixedGroup, SleepyEnv
from tests.fakes.environment import CountingGroup
from tests.fakes.sampler import ScriptedSampler, SeededSampler
from tinker_ray.errors import ActorLostError, ConfigurationError, StaleHandleError
from tinker_ray.rl.outcome import DroppedGroup
from tinker_ray.rl.placement import PoolWorker
from tinker_ray.rl.pool import LOSSES_PER_WORKER, RolloutPool
from tinker_ray.rl.worker import LocalWorker
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    EnvGroupBuilder,
    RolloutFailedError,
    RolloutParams,
    Sampler,
    Timeouts,
    TrajectoryGroup,
)

ONE = ScriptedSampler(lambda _, row: [row])


class GatedWorker(LocalWorker):
    """Runs a group when the test opens its gate; remembers the attempts that began."""

    def __init__(self) -> None:
        self.begun: list[AttemptId] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.fourth_begun = asyncio.Event()
        self.is_closed = False

    def gate(self, group: int) -> asyncio.Event:
        return self.gates.setdefault(group, asyncio.Event())

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        self.begun.append(attempt.id)
        if len(self.begun) == 4:
            self.fourth_begun.set()
        await self.gate(attempt.id.group).wait()
        return await super().run_group(builder, sampler, attempt)

    async def close(self) -> None:
        self.is_closed = True


class ClosingWorker(GatedWorker):
    """Tells when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def close(self) -> None:
        await super().close()
        self.closed.set()


class FailingWorker(LocalWorker):
    """Raises the given errors first, one per attempt."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        if self.errors:
            raise self.errors.pop(0)
        return await super().run_group(builder, sampler, attempt)


def pool_of(*workers: PoolWorker, groups_per_worker: int = 4) -> RolloutPool:
    queue = list(workers)

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        if not queue:
            raise ActorLostError("no more workers")
        return queue.pop(0)

    return RolloutPool(1, groups_per_worker=groups_per_worker, open_worker=open_worker)


def builders(count: int) -> list[EnvGroupBuilder]:
    return [CountingGroup([index], size=2) for index in range(count)]


async def test_every_builder_gives_one_group_with_its_index() -> None:
    async with RolloutPool(2, groups_per_worker=3) as pool:
        groups = [group async for group in pool.run(builders(20), ONE)]
    assert sorted(group.index for group in groups) == list(range(20))
    assert all(group.get_total_rewards() == [0.0, 1.0] for group in groups)
    assert (pool.account.dispatched, pool.account.delivered) == (20, 20)


async def test_groups_come_in_completion_order() -> None:
    worker = GatedWorker()
    async with pool_of(worker) as pool, aclosing(pool.run(builders(3), ONE)) as groups:
        order = []
        for index in (2, 0, 1):
            worker.gate(index).set()
            order.append((await anext(groups)).index)
    assert order == [2, 0, 1]


async def test_a_seed_gives_each_group_draws_of_its_own_whatever_the_number_of_workers() -> None:
    async def rewards(workers: int) -> dict[int, list[float]]:
        async with RolloutPool(workers, groups_per_worker=2) as pool:
            run = pool.run(builders(6), SeededSampler(), RolloutParams(seed=3))
            return {group.index: group.get_total_rewards() async for group in run}

    one, three = await rewards(1), await rewards(3)
    assert one == three
    assert len({tuple(values) for values in one.values()}) > 1


async def test_builders_are_taken_as_room_appears_so_an_endless_source_works() -> None:
    taken = 0

    def endless() -> Iterator[EnvGroupBuilder]:
        nonlocal taken
        while True:
            taken += 1
            yield CountingGroup([1])

    async with (
        RolloutPool(1, groups_per_worker=2, window=4) as pool,
        aclosing(pool.run(endless(), ONE)) as groups,
    ):
        first = [(await anext(groups)).index for _ in range(5)]
        assert len(first) == 5
    assert taken <= 10
    assert pool.in_flight == 0


async def test_a_failed_attempt_is_run_again_with_fresh_environments() -> None:
    failure = RolloutFailedError(kind="infrastructure", stage="sample", detail="gone")
    builder = CountingGroup([1])
    async with pool_of(FailingWorker(failure)) as pool:
        [group] = [group async for group in pool.run([builder], ONE)]
    assert (group.attempt, builder.num_builds) == (1, 1)
    assert pool.account.retried == 1


async def test_a_group_whose_environment_raises_is_dropped_with_its_reason() -> None:
    bad = CountingGroup([1], error=KeyError("missing"))
    async with RolloutPool(1) as pool:
        groups = [group async for group in pool.run([bad, CountingGroup([2])], ONE)]
    assert [group.index for group in groups] == [1]
    assert dict(pool.account.dropped) == {"environment": 1}
    assert "KeyError" in pool.account.details["environment"]


async def test_an_unexpected_error_of_a_worker_costs_its_group_only() -> None:
    async with pool_of(FailingWorker(*[ZeroDivisionError()] * 4)) as pool:
        groups = [group async for group in pool.run(builders(3), ONE)]
    assert (len(groups), pool.account.retried, pool.account.open) == (2, 3, 0)


async def test_an_attempt_that_its_worker_cancels_is_run_again() -> None:
    async with pool_of(FailingWorker(*(asyncio.CancelledError() for _ in range(2)))) as pool:
        groups = [group.index async for group in pool.run(builders(4), ONE)]
    assert [0, 1, 2, 3] == sorted(groups)
    assert {"infrastructure": 2} == pool.account.retries


async def test_an_environment_that_cancels_itself_is_its_builders_fault() -> None:
    cancelling = CountingGroup([1], error=asyncio.CancelledError())
    async with pool_of(LocalWorker()) as pool:
        groups = [group.index async for group in pool.run([cancelling, *builders(2)], ONE)]
    assert [1, 2] == sorted(groups)
    assert {"environment": 1} == pool.account.dropped


async def test_what_the_consumer_raises_over_a_drop_ends_the_run() -> None:
    def refuse(drop: DroppedGroup) -> None:
        raise LookupError(drop.reason)

    broken = [CountingGroup([1], error=KeyError("x")) for _ in range(3)]
    async with pool_of(LocalWorker()) as pool:
        with pytest.raises(LookupError, match="environment"):
            _ = [group async for group in pool.run([*broken, *builders(9)], ONE, on_drop=refuse)]
    assert 0 == pool.account.open


async def test_a_lost_worker_is_replaced_and_its_groups_run_again() -> None:
    lost = FailingWorker(*(ActorLostError("killed") for _ in range(4)))
    async with pool_of(lost, LocalWorker()) as pool:
        groups = [group async for group in pool.run(builders(6), ONE)]
    assert sorted(group.index for group in groups) == list(range(6))
    assert pool.account.open == 0


async def test_without_a_worker_left_the_run_ends_with_an_error() -> None:
    pool = pool_of(FailingWorker(ActorLostError("killed")))
    with pytest.raises(ActorLostError, match="no rollout worker is left"):
        async with pool:
            _ = [group async for group in pool.run(builders(6), ONE)]
    assert pool.account.open == 0


async def test_workers_that_die_again_and_again_end_the_run() -> None:
    dying = [FailingWorker(*[ActorLostError("killed")] * 9) for _ in range(LOSSES_PER_WORKER + 9)]
    with pytest.raises(ActorLostError, match="no rollout worker is left"):
        async with pool_of(*dying) as pool:
            _ = [group async for group in pool.run(builders(6), ONE)]


async def test_one_group_that_all_workers_die_of_is_dropped_and_the_run_goes_on() -> None:
    queue = [FailingWorker(ActorLostError("killed")) for _ in range(7)]

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        return queue.pop() if queue else LocalWorker()

    async with RolloutPool(1, groups_per_worker=1, retries=6, open_worker=open_worker) as pool:
        groups = [group.index async for group in pool.run(builders(2), ONE)]
    assert [1] == groups
    assert {"deadly": 1} == pool.account.dropped


async def test_a_builder_that_workers_die_of_comes_into_quarantine() -> None:
    queue = [FailingWorker(ActorLostError("killed")) for _ in range(2)]

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        return queue.pop() if queue else LocalWorker()

    pool = RolloutPool(
        1, groups_per_worker=1, retries=1, quarantine_after=1, open_worker=open_worker
    )
    async with pool:
        again = [*builders(1), *builders(2)]
        groups = [group.index async for group in pool.run(again, ONE)]
    assert [2] == groups
    assert {"deadly": 1, "quarantined": 1} == pool.account.dropped


async def test_a_pool_that_lost_all_workers_opens_new_ones_for_the_next_run() -> None:
    lost = FailingWorker(*(ActorLostError("killed") for _ in range(4)))
    queue: list[PoolWorker | ActorLostError] = [lost, ActorLostError("no room"), LocalWorker()]

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        following = queue.pop(0)
        if isinstance(following, ActorLostError):
            raise following
        return following

    async with RolloutPool(1, groups_per_worker=4, open_worker=open_worker) as pool:
        with pytest.raises(ActorLostError, match="no rollout worker is left"):
            _ = [group async for group in pool.run(builders(6), ONE)]
        groups = [group async for group in pool.run(builders(6), ONE)]
    assert len(groups) == 6


async def test_leaving_a_run_cancels_what_it_had_under_way() -> None:
    worker = GatedWorker()
    async with pool_of(worker) as pool:
        async with aclosing(pool.run(builders(8), ONE)) as groups:
            worker.gate(0).set()
            await anext(groups)
        assert pool.in_flight == 0
        assert pool.account.dropped == {"cancelled": pool.account.dispatched - 1}
    assert worker.is_closed


async def test_cancelling_the_consumer_leaves_no_task_behind() -> None:
    worker = GatedWorker()

    async def consume() -> None:
        async with pool_of(worker) as pool:
            _ = [group async for group in pool.run(builders(8), ONE)]

    consumer = asyncio.create_task(consume())
    await worker.fourth_begun.wait()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert worker.is_closed


async def test_a_pool_that_is_not_open_says_so() -> None:
    with pytest.raises(StaleHandleError, match="not open"):
        await anext(RolloutPool(1).run(builders(1), ONE))


async def test_the_first_groups_are_shared_out_evenly() -> None:
    workers = [GatedWorker(), GatedWorker()]
    queue: list[PoolWorker] = list(workers)

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        return queue.pop(0)

    async with (
        RolloutPool(2, groups_per_worker=8, open_worker=open_worker) as pool,
        aclosing(pool.run(builders(10), ONE)) as groups,
    ):
        for worker in workers:
            worker.gate(0).set()
            worker.gate(1).set()
        await anext(groups)
        assert [5, 5] == [len(worker.begun) for worker in workers]


async def test_a_pool_passes_on_its_time_limits_and_what_a_group_may_do_without() -> None:
    builder = MixedGroup([1], size=3, others={1: SleepyEnv([1])})
    done = []
    pool = RolloutPool(
        1, timeouts=Timeouts(step_s=0.02), min_episodes=2, setup=lambda: done.append(1)
    )
    async with pool:
        [group] = [group async for group in pool.run([builder], ONE)]
    assert ([0.0, 2.0], 1, [1]) == (group.get_total_rewards(), group.num_failed, done)
    assert "timeout" == group.rollout_errors[0].error_type


async def test_a_pool_grows_while_groups_wait_for_room_and_shrinks_when_fewer_would_do() -> None:
    workers: list[ClosingWorker] = []

    async def open_worker(_: Sampler, __: int) -> PoolWorker:
        workers.append(ClosingWorker())
        return workers[-1]

    pool = RolloutPool(
        1, max_workers=3, shrink_after_s=0.0, groups_per_worker=2, open_worker=open_worker
    )
    async with pool, aclosing(pool.run(builders(8), ONE)) as groups:
        first = asyncio.ensure_future(anext(groups))
        while len(workers) < 3 or pool.in_flight < 6:  # noqa: ASYNC110 - until all of them work
            await asyncio.sleep(0)
        assert [False] * 3 == [worker.closed.is_set() for worker in workers]
        for index in range(8):
            for worker in workers:
                worker.gate(index).set()
        await first
        async for _ in groups:
            pass
        for worker in workers[1:]:
            await worker.closed.wait()
        assert not workers[0].closed.is_set()
    assert (pool.account.delivered, pool.account.open) == (8, 0)


def test_fewer_workers_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_workers=1"):
        RolloutPool(2, max_workers=1)

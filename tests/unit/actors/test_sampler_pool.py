from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.handles.sampler import MAX_LOSSES, SamplerPoolHandle
from actors.sampler import Answered
from tests.fakes.fixed_fleet import FixedFleet
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import request, until
from tinker_ray.errors import ActorLostError, BadRequestError, StaleHandleError
from tinker_ray.types import SampleResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from actors.sampler import SampleItem


UNLUCKY = 13


class Echo:
    """Yields one sample at a time; the seed comes back as cache hits."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Answered]:
        seeds = [item.request.sampling_params.seed or 0 for item in batch]
        self.batches.append(seeds)
        for number, seed in enumerate(seeds):
            await asyncio.sleep(0)
            if seed == UNLUCKY:
                yield Answered([(number, BadRequestError("13", status_code=400))])
            else:
                yield Answered([(number, SampleResponse([], prompt_cache_hit_tokens=seed))])


def remotes(*names: str) -> list[Any]:
    return [FakeRemote(Echo, name) for name in names]


def pool_of(*samplers: Any, **options: Any) -> SamplerPoolHandle:  # noqa: ANN401
    return SamplerPoolHandle(FixedFleet(samplers), **options)


async def drawn(pool: SamplerPoolHandle, seeds: range) -> list[int]:
    answers = await asyncio.gather(*(pool.sample(request(seed)) for seed in seeds))
    return [answer.prompt_cache_hit_tokens for answer in answers]


async def test_samples_of_one_tick_travel_in_one_call() -> None:
    [remote] = remotes("a")
    pool = pool_of(remote)
    assert list(range(1, 9)) == await drawn(pool, range(1, 9))
    assert [list(range(1, 9))] == remote.actor.batches


async def test_samplers_share_the_samples() -> None:
    first, second = remotes("a", "b")
    pool = pool_of(first, second)
    await drawn(pool, range(100, 120))
    assert [10, 10] == [len(remote.actor.batches[0]) for remote in (first, second)]
    await pool.aclose()


async def test_an_error_reaches_only_whose_it_is() -> None:
    pool = pool_of(*remotes("a"))
    answers = await asyncio.gather(
        *(pool.sample(request(seed)) for seed in (12, 13, 14)), return_exceptions=True
    )
    assert [SampleResponse, BadRequestError, SampleResponse] == [type(item) for item in answers]


async def test_a_burst_begins_with_a_small_call_to_each_sampler() -> None:
    first, second = remotes("a", "b")
    pool = pool_of(first, second)
    assert list(range(20, 520)) == await drawn(pool, range(20, 520))
    sizes = [[len(batch) for batch in remote.actor.batches] for remote in (first, second)]
    assert [[32, 64, 128, 26]] * 2 == sizes
    await pool.aclose()


async def test_samples_of_a_lost_sampler_are_drawn_elsewhere() -> None:
    first, second = remotes("a", "b")
    first.deaths = 1
    pool = pool_of(first, second, node="here")
    assert list(range(20, 40)) == await drawn(pool, range(20, 40))
    assert 2 <= len(second.actor.batches)
    await pool.aclose()


async def test_a_sampler_that_always_dies_is_given_up_after_some_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [remote] = remotes("a")
    remote.deaths = 10_000
    pool = pool_of(remote)
    monkeypatch.setattr("actors.handles.sampler.PAUSE_S", 0.0)
    answers = await asyncio.gather(
        *(pool.sample(request(seed)) for seed in range(20, 60)), return_exceptions=True
    )
    lost = [item for item in answers if isinstance(item, ActorLostError)]
    attempts = [item.attempt for _, (batch,) in remote.calls for item in batch]
    assert MAX_LOSSES == max(attempts)
    answered = len(remote.calls)  # each call is answered once before it dies
    assert (answered, 40 - answered) == (len(answers) - len(lost), len(lost))


async def test_a_closed_pool_answers_everybody() -> None:
    class Never(Echo):
        async def sample_many(self, _: Sequence[SampleItem]) -> AsyncIterator[Answered]:
            await asyncio.get_running_loop().create_future()
            yield Answered([])

    pool = pool_of(FakeRemote(Never))
    waiting = asyncio.create_task(pool.sample(request(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.aclose()
    with pytest.raises(StaleHandleError):
        await waiting
    with pytest.raises(StaleHandleError):
        await pool.sample(request(2))


class Slow:
    """Yields nothing until samples are cancelled, then an answer for each."""

    def __init__(self) -> None:
        self.cancelled: list[list[str]] = []
        self.batches: list[Sequence[SampleItem]] = []
        self._some = asyncio.Event()

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Answered]:
        self.batches.append(batch)
        await self._some.wait()
        yield Answered([(n, StaleHandleError("cancelled")) for n in range(len(batch))])

    async def cancel(self, keys: list[str]) -> None:
        self.cancelled.append(keys)
        self._some.set()


async def test_cancelling_samples_tells_their_sampler_once_per_tick() -> None:
    remote: Any = FakeRemote(Slow)
    pool = pool_of(remote)
    waiting = [asyncio.create_task(pool.sample(request(seed))) for seed in range(3)]
    await until(lambda: bool(remote.actor.batches))
    for task in waiting[:2]:
        task.cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    [batch] = remote.actor.batches
    assert [[item.key for item in batch[:2]]] == remote.actor.cancelled
    assert [asyncio.CancelledError] * 2 + [StaleHandleError] == [type(item) for item in answers]
    assert 3 == len({item.key for item in batch})
    await pool.aclose()


async def test_a_sample_cancelled_before_it_left_never_leaves() -> None:
    remote: Any = FakeRemote(Slow)
    pool = pool_of(remote)
    waiting = asyncio.create_task(pool.sample(request(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert ([], []) == (remote.actor.batches, remote.actor.cancelled)
    await pool.aclose()

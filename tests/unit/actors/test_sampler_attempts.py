"""Attempts at samples: late answers, refusals, second attempts, samplers that are not up yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.handles.attempt import is_repeatable
from actors.handles.sampler import SamplerPoolHandle
from actors.sampler import Answered
from tests.fakes.fixed_fleet import FixedFleet
from tests.fakes.remote_actor import FakeRemote
from tests.unit.actors.conftest import request, until
from tinker_ray.core.traffic import Traffic
from tinker_ray.errors import ActorLostError, BadRequestError, ConfigurationError
from tinker_ray.types import ModelInput, SampleResponse, SamplingParams
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from actors.sampler import Outcome, SampleItem


class Held:
    """Answers a batch when it is told to, each sample with the same outcome."""

    def __init__(self, number: int) -> None:
        self.outcome: Outcome = SampleResponse([], prompt_cache_hit_tokens=number)
        self.go = asyncio.Event()
        self.items: list[SampleItem] = []
        self.cancelled: list[str] = []

    async def sample_many(self, batch: Sequence[SampleItem]) -> AsyncIterator[Answered]:
        self.items.extend(batch)
        await self.go.wait()
        yield Answered([(number, self.outcome) for number in range(len(batch))])

    async def cancel(self, keys: list[str]) -> None:
        self.cancelled.extend(keys)


class Pool:
    """Two held samplers, and a pool over them whose own node is the first one's."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        self.held = [Held(1), Held(2)]
        self.remotes = [
            FakeRemote(lambda held=held: held, name)  # type: ignore[misc]
            for held, name in zip(self.held, "ab", strict=True)
        ]
        self.fleet = FixedFleet(self.remotes)
        self.handle = SamplerPoolHandle(self.fleet, "a", **options)

    def ask(self, number: int = 0, **more: Any) -> asyncio.Task[SampleResponse]:  # noqa: ANN401
        return asyncio.create_task(self.handle.sample(request(number), **more))


async def test_the_late_answer_of_a_sampler_that_was_dropped_is_not_taken() -> None:
    pool = Pool()
    first, second = pool.held
    waiting = pool.ask()
    await until(lambda: bool(first.items))
    pool.handle.drop("a")
    await until(lambda: bool(second.items))
    first.go.set()  # isolated, it goes on beside its replacement
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    second.go.set()
    assert 2 == (await waiting).prompt_cache_hit_tokens
    assert first.items[0].key != second.items[0].key
    assert [1, 2] == [first.items[0].attempt, second.items[0].attempt]
    await pool.handle.aclose()


async def test_what_a_sampler_that_ends_does_not_begin_goes_to_another() -> None:
    pool = Pool()
    first, second = pool.held
    first.outcome = None
    first.go.set()
    second.go.set()
    assert 2 == (await pool.ask()).prompt_cache_hit_tokens
    assert 2 == (await pool.ask()).prompt_cache_hit_tokens
    assert 1 == len(first.items), "it is given nothing more"
    await pool.handle.aclose()


async def test_a_slow_sample_is_drawn_by_a_second_sampler_and_the_slow_attempt_cancelled() -> None:
    pool = Pool(hedge_after_s=1e-4)
    first, second = pool.held
    second.go.set()
    assert 2 == (await pool.ask()).prompt_cache_hit_tokens
    assert [True] == [item.is_hedge for item in second.items]
    await until(lambda: bool(first.cancelled))
    assert [first.items[0].key] == first.cancelled
    first.go.set()
    await pool.handle.aclose()


async def test_the_error_of_one_attempt_does_not_count_while_another_goes_on() -> None:
    pool = Pool(hedge_after_s=1e-4)
    first, second = pool.held
    first.outcome = BadRequestError("no", status_code=400)
    waiting = pool.ask()
    await until(lambda: bool(second.items))
    first.go.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    second.go.set()
    assert 2 == (await waiting).prompt_cache_hit_tokens
    await pool.handle.aclose()


async def test_cancelling_a_sample_cancels_all_its_attempts() -> None:
    pool = Pool(hedge_after_s=1e-4)
    first, second = pool.held
    waiting = pool.ask()
    await until(lambda: bool(second.items))
    waiting.cancel()
    await until(lambda: bool(first.cancelled and second.cancelled))
    assert [first.items[0].key, second.items[0].key] == first.cancelled + second.cancelled
    await pool.handle.aclose()


@pytest.mark.parametrize(
    "params,scores,repeatable",
    [
        (SamplingParams(max_tokens=4, seed=0), False, True),
        (SamplingParams(max_tokens=4, temperature=0.0), False, True),
        (SamplingParams(max_tokens=1), True, True),
        (SamplingParams(max_tokens=4), False, False),
    ],
)
def test_only_what_comes_out_the_same_is_drawn_twice(
    params: SamplingParams,
    scores: bool,  # noqa: FBT001
    repeatable: bool,  # noqa: FBT001
) -> None:
    asked = SampleRequest(ModelInput.from_ints([1]), params, prompt_logprobs=scores)
    assert repeatable == is_repeatable(asked)


async def test_turns_of_a_conversation_go_to_one_sampler() -> None:
    pool = Pool()
    for held in pool.held:
        held.go.set()
    found = []
    for name in ("x", "y", "z", "u", "v", "w"):
        turns = [await pool.ask(traffic=Traffic(conversation=name)) for _ in range(4)]
        found.append({turn.prompt_cache_hit_tokens for turn in turns})
    assert [1] * 6 == [len(each) for each in found]
    assert {1, 2} == set.union(*found)
    await pool.handle.aclose()


class NotUp(FakeRemote):
    """A sampler that comes up when it is told to, or not at all."""

    up: asyncio.Future[None]

    async def ping(self) -> Any:  # noqa: ANN401
        await self.up
        return await super().ping()


async def test_samples_wait_for_the_first_sign_of_life() -> None:
    held = Held(7)
    held.go.set()
    remote = NotUp(lambda: held, "a")
    remote.up = asyncio.get_running_loop().create_future()
    pool = SamplerPoolHandle(FixedFleet([remote]))
    waiting = asyncio.create_task(pool.sample(request(1)))
    await asyncio.sleep(0)
    assert (1, []) == (pool.num_waiting, held.items)
    remote.up.set_result(None)
    assert 7 == (await waiting).prompt_cache_hit_tokens
    await pool.aclose()


@pytest.mark.parametrize(
    "error", [ActorLostError("dead", actor="a"), ConfigurationError("no API key")]
)
async def test_the_fleet_hears_of_a_sampler_that_will_never_work(error: Exception) -> None:
    remote = NotUp(lambda: Held(1), "a", is_dead=True)
    remote.up = asyncio.get_running_loop().create_future()
    fleet = FixedFleet([remote])
    pool = SamplerPoolHandle(fleet)
    remote.up.set_exception(error)
    await until(lambda: bool(fleet.gone))
    assert [("a", type(error))] == fleet.gone
    await pool.aclose()
    assert fleet.closed

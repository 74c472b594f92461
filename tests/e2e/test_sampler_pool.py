"""The pool of samplers on real Ray, in front of a toy service that answers when it is told to."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from actors.starting import ClusterOptions
from tests.fakes.cluster_session import (
    OPTIONS,
    cluster_session,
    expected_tokens,
    kill,
    tokens,
)
from tests.fakes.toy_service import ToyService
from tinker_ray.core.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.cluster_session import ClusterSession
    from tinker_ray.types import SampleResponse

pytestmark = pytest.mark.usefixtures("ray_cluster")

ELASTIC = ClusterOptions(
    min_samplers=1,
    max_samplers=2,
    samples_per_sampler=10,
    sampler_idle_s=1.0,
    patience=OPTIONS.patience,
)
PAIR = ClusterOptions(min_samplers=2, max_samplers=2, patience=OPTIONS.patience)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do; far longer than it takes."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - processes set no events
            await asyncio.sleep(0.02)


def asked(session: ClusterSession, seeds: range) -> list[asyncio.Task[SampleResponse]]:
    sample = session.runtime.sampling.sample
    return [asyncio.create_task(sample(session.request(seed))) for seed in seeds]


async def test_the_pool_grows_under_load_and_drains_afterwards_without_losing_a_sample() -> None:
    toy = ToyService(sample_s=math.inf)
    async with cluster_session(toy, ELASTIC) as session:
        pool = session.runtime.sampling
        first = asked(session, range(20))
        await until(lambda: len(pool.samplers) == 2)
        await until(lambda: len(toy.sampled) == 20)
        toy.answer_samples()
        await asyncio.gather(*first)
        # Too little for two from now on: one of them drains, whatever it still has.
        rest = asked(session, range(20, 24))
        await until(lambda: len(toy.sampled) == 24)
        await until(lambda: any(each.member.is_ending for each in pool.samplers.values()))
        toy.sample_s = 0.0
        toy.answer_samples()
        answers = await asyncio.gather(*first, *rest)
        await until(lambda: len(pool.samplers) == 1)
        [alone] = await asyncio.gather(*asked(session, range(24, 25)))
    assert [expected_tokens(seed) for seed in range(24)] == [tokens(answer) for answer in answers]
    assert expected_tokens(24) == tokens(alone)
    assert 25 == len(toy.sampled), "a sample was submitted twice"


async def test_conversations_stay_and_what_a_killed_sampler_had_is_drawn_by_the_other() -> None:
    toy = ToyService()
    async with cluster_session(toy, PAIR) as session:
        pool = session.runtime.sampling
        await until(lambda: all(each.member.is_ready for each in pool.samplers.values()))

        clones = []
        for conversation in ("first", "second", "third", "fourth"):
            before = set(toy.sampled)
            for turn in range(5):
                traffic = Traffic(conversation=conversation)
                await pool.sample(session.request(turn), traffic=traffic)
            clones.append({seq // 10**9 for _, seq in set(toy.sampled) - before})
        assert [1] * 4 == [len(each) for each in clones]
        assert 2 == len(set.union(*clones)), "all conversations are at one sampler"

        toy.sample_s = math.inf
        before = set(toy.sampled)
        waiting = asked(session, range(100, 140))
        await until(lambda: len(set(toy.sampled) - before) == 40)
        victim, other = pool.samplers.values()
        lost = len(victim.open)
        await kill(victim.remote)
        await until(lambda: len(set(toy.sampled) - before) == 40 + lost)
        assert 0 < lost < 40
        toy.answer_samples()
        answers = await asyncio.gather(*waiting)
        assert [expected_tokens(seed) for seed in range(100, 140)] == [
            tokens(answer) for answer in answers
        ]
        assert (0, 0) == (len(victim.open), len(other.open))
        await until(lambda: victim.member.is_ready)
        states = [await each.remote.control("state") for each in pool.samplers.values()]
        assert lost == sum(state.resubmitted for state in states)

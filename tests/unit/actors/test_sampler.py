from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors import lease_keeper
from actors.sampler import AT_ONCE, MAX_UNWANTED, Outcomes, SampleItem, SamplerActor
from actors.session import SessionActor
from tests.fakes.toy_service import ToyService, ToyTransport, toy_sample
from tests.unit.actors.conftest import SERVICE, request, until
from tinker_ray.core.flags import JSON_ONLY, DynamicFlags
from tinker_ray.core.link import Link
from tinker_ray.errors import ActorLostError, BadRequestError, StaleHandleError
from tinker_ray.limits import Paused
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Response
from tinker_ray.types import SampleResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from actors.lease_keeper import Ledger
    from tinker_ray.transport.message import Request


class SlowToyTransport(ToyTransport):
    """Counts the sampling requests that are under way at once, over all transports of a list."""

    under_way = 0
    most_under_way = 0

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        if not request.path.endswith("asample"):
            return await super().attempt(request, headers)
        cls = type(self)
        cls.under_way += 1
        cls.most_under_way = max(cls.most_under_way, cls.under_way)
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().attempt(request, headers)
        finally:
            cls.under_way -= 1


@asynccontextmanager
async def sampler(ledger: Ledger, transport: ToyTransport) -> AsyncIterator[SamplerActor]:
    actor = SamplerActor(SERVICE, ledger, link=Link(transport, flags=JSON_ONLY))
    try:
        yield actor
    finally:
        await actor.aclose()


@asynccontextmanager
async def session(toy: ToyService, limit: int = 400) -> AsyncIterator[SessionActor]:
    actor = SessionActor(SERVICE, link=Link(ToyTransport(toy), flags=JSON_ONLY), limit=limit)
    try:
        yield actor
    finally:
        await actor.aclose()


async def drawn(actor: SamplerActor, seeds: range) -> Outcomes:
    return await collected(actor, [SampleItem(request(seed)) for seed in seeds])


def tokens(outcome: object) -> list[int]:
    assert isinstance(outcome, SampleResponse)
    return outcome.sequences[0].tokens


def expected_tokens(seed: int) -> list[int]:
    body = {
        "sampling_params": {"seed": seed, "max_tokens": 4},
        "prompt": {"chunks": [{"tokens": [1, 2, seed]}]},
    }
    found: list[int] = toy_sample(body)["sequences"][0]["tokens"]
    return found


async def test_a_batch_yields_each_of_its_samples_once(toy: ToyService) -> None:
    async with session(toy) as ledger, sampler(ledger, SlowToyTransport(toy)) as actor:
        outcomes = await drawn(actor, range(50))
    assert list(range(50)) == sorted(number for number, _ in outcomes)
    assert all(expected_tokens(seed) == tokens(outcome) for seed, outcome in outcomes)


async def test_samplers_together_keep_to_the_limit(toy: ToyService) -> None:
    SlowToyTransport.most_under_way = 0
    async with (
        session(toy, limit=8) as ledger,
        sampler(ledger, SlowToyTransport(toy)) as first,
        sampler(ledger, SlowToyTransport(toy)) as second,
    ):
        found = await asyncio.gather(drawn(first, range(60)), drawn(second, range(60)))
    assert [60, 60] == [len(outcomes) for outcomes in found]
    assert 4 < SlowToyTransport.most_under_way <= 8


async def test_permits_return_when_a_sampler_closes(toy: ToyService) -> None:
    async with session(toy) as ledger:
        async with sampler(ledger, ToyTransport(toy)) as actor:
            await drawn(actor, range(10))
        assert 0 == (await ledger.inventory())["permits_leased"]


async def test_samplers_of_a_session_use_different_numbers(toy: ToyService) -> None:
    async with (
        session(toy) as ledger,
        sampler(ledger, ToyTransport(toy)) as first,
        sampler(ledger, ToyTransport(toy)) as second,
    ):
        await asyncio.gather(drawn(first, range(20)), drawn(second, range(20)))
    assert 40 == len(toy.sampled)
    assert 2 == len({seq // 1_000_000_000 for _, seq in toy.sampled})


async def test_an_error_of_one_sample_is_a_value_among_the_others(toy: ToyService) -> None:
    class Refusing(ToyTransport):
        async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
            if b'"seed":1,' in request.content or b'"seed":1}' in request.content:
                raise BadRequestError("no seed 1 today", status_code=400)
            return await super().attempt(request, headers)

    async with session(toy) as ledger, sampler(ledger, Refusing(toy)) as actor:
        outcomes = dict(await drawn(actor, range(3)))
    assert isinstance(outcomes[1], BadRequestError)
    assert [expected_tokens(0), expected_tokens(2)] == [tokens(outcomes[0]), tokens(outcomes[2])]


async def test_a_rejection_pauses_every_sampler_that_may_send(toy: ToyService) -> None:
    async with (
        session(toy) as ledger,
        sampler(ledger, ToyTransport(toy)) as first,
        sampler(ledger, ToyTransport(toy)) as second,
    ):
        await drawn(second, range(1))
        toy.rejections = 1
        drawing = asyncio.create_task(drawn(first, range(1)))
        admission = second._sampling.keeper.admission
        for _ in range(100):
            await asyncio.sleep(0)
        now = second._sampling._link.clock.now()
        assert isinstance(admission.limits.state(now), Paused)
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)


class SilentLedger:
    """A session's actor that cannot be reached."""

    async def state(self, _: object) -> Any:  # noqa: ANN401
        raise ActorLostError("gone", actor="session")

    listen = state


async def test_samples_fail_when_the_ledger_is_silent_for_too_long(toy: ToyService) -> None:
    clock = VirtualClock()
    ledger: Any = SilentLedger()
    ledger.listen = _never
    actor = SamplerActor(SERVICE, ledger, link=Link(ToyTransport(toy), clock, JSON_ONLY))
    drawing = asyncio.create_task(drawn(actor, range(3)))
    for _ in range(20):
        await asyncio.sleep(0)
    await clock.sleep(lease_keeper.PATIENCE_S + 1)
    outcomes = await drawing
    assert [ActorLostError] * 3 == [type(outcome) for _, outcome in outcomes]
    await actor.aclose()


async def _never(*_: object) -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_waits_at_a_close_is_answered(toy: ToyService) -> None:
    ledger: Any = SilentLedger()
    ledger.listen = _never
    actor = SamplerActor(SERVICE, ledger, link=Link(ToyTransport(toy), flags=JSON_ONLY))
    drawing = asyncio.create_task(drawn(actor, range(2)))
    for _ in range(10):
        await asyncio.sleep(0)
    await actor.aclose()
    assert [StaleHandleError] * 2 == [type(outcome) for _, outcome in await drawing]


# --- cancelling -----------------------------------------------------------------------------------

CANCELLING = replace(JSON_ONLY, dynamic=DynamicFlags(sample_cancel_enabled=True))


class Told(ToyTransport):
    """Keeps which promises were cancelled."""

    def __init__(self, toy: ToyService) -> None:
        super().__init__(toy)
        self.cancelled: list[str] = []

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        if request.path.endswith("cancel_future"):
            self.cancelled.append(json.loads(request.content)["request_id"])
            return Response(200, {"content-type": "application/json"}, b"{}")
        return await super().attempt(request, headers)


async def test_a_cancelled_sample_is_cancelled_at_the_service_and_answered(
    toy: ToyService,
) -> None:
    toy.sample_s = 1000.0
    transport = Told(toy)
    link = Link(transport, flags=CANCELLING)
    async with session(toy) as ledger:
        actor = SamplerActor(SERVICE, ledger, link=link)
        items = [SampleItem(request(seed), key=f"k{seed}") for seed in range(3)]
        drawing = asyncio.create_task(collected(actor, items))
        await until(lambda: len(toy.sampled) == len(items))
        await actor.cancel(["k0", "k1", "k2"])
        outcomes = await drawing
        await until(lambda: len(transport.cancelled) == len(items))
        await actor.aclose()
    assert [0, 1, 2] == sorted(number for number, _ in outcomes)
    assert [StaleHandleError] * 3 == [type(outcome) for _, outcome in outcomes]
    assert {"promise-0", "promise-1", "promise-2"} == set(transport.cancelled)


async def test_a_cancellation_that_comes_before_its_sample_keeps_it_from_being_drawn(
    toy: ToyService,
) -> None:
    async with session(toy) as ledger, sampler(ledger, ToyTransport(toy)) as actor:
        await actor.cancel(["k1"])
        items = [SampleItem(request(seed), key=f"k{seed}") for seed in range(3)]
        outcomes = dict(await collected(actor, items))
    assert isinstance(outcomes[1], StaleHandleError)
    assert [expected_tokens(0), expected_tokens(2)] == [tokens(outcomes[0]), tokens(outcomes[2])]
    assert 2 == len(toy.sampled)


async def test_samples_of_a_long_batch_that_are_cancelled_as_they_begin_are_answered(
    toy: ToyService,
) -> None:
    async with session(toy) as ledger, sampler(ledger, ToyTransport(toy)) as actor:
        items = [SampleItem(request(seed), key=f"k{seed}") for seed in range(3 * AT_ONCE)]
        drawing = asyncio.create_task(collected(actor, items))
        await asyncio.sleep(0)
        await actor.cancel([item.key for item in items])  # begun, about to begin, or not yet
        outcomes = dict(await drawing)
        assert set(range(3 * AT_ONCE)) == set(outcomes)
        assert {StaleHandleError} == {type(outcome) for outcome in outcomes.values()}
        assert 0 == actor.state().load


async def test_cancellations_of_what_never_comes_are_forgotten(toy: ToyService) -> None:
    async with session(toy) as ledger, sampler(ledger, ToyTransport(toy)) as actor:
        await actor.cancel([f"gone{number}" for number in range(MAX_UNWANTED + 5)])
        assert len(actor._unwanted) == MAX_UNWANTED
        assert "gone0" not in actor._unwanted


async def collected(actor: SamplerActor, items: list[SampleItem]) -> Outcomes:
    found: Outcomes = []
    async for answered in actor.sample_many(items):
        found += answered.outcomes
    return found

"""Samples wait for the run's budget, are refused by it, and give back what they did not use."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray.budget import Budget, Price
from tinker_ray.core.spending import LocalSpend, Spending
from tinker_ray.errors import (
    ActorLostError,
    BudgetExceededError,
    ConfigurationError,
    StaleHandleError,
)
from tinker_ray.limits import Spend, SpendShare
from tinker_ray.types import ModelInput, SampledSequence, SampleResponse, SamplingParams
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from tinker_ray.limits import SpendClaim, SpendGrant

REQUEST = SampleRequest(
    ModelInput.from_ints([1] * 10),
    SamplingParams(max_tokens=45),
    num_samples=2,
    sampling_session_id="s",
)
"""It may take 100 tokens."""


class Flaky(LocalSpend):
    """Answers nothing as long as it is down."""

    is_down = False

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        if self.is_down:
            raise ActorLostError("gone", actor="session")
        return await super().claim_spend(claim)


class World:
    def __init__(self, budget: Budget) -> None:
        self.clock = SteppedClock()
        self.port = Flaky(budget)
        self.asked: list[str] = []
        self.spending = Spending(
            SpendShare("h", budget), self.port, self.clock, self._ask_base_model
        )
        self.gate = asyncio.Event()

    async def _ask_base_model(self, session_id: str) -> str:
        self.asked.append(session_id)
        return "m"

    async def sample(self, num_drawn: int, request: SampleRequest = REQUEST) -> None:
        async with self.spending.sample(request) as settle:
            await self.gate.wait()
            settle(
                SampleResponse([SampledSequence(stop_reason="stop", tokens=list(range(num_drawn)))])
            )

    def start(self, num_drawn: int = 90) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.sample(num_drawn))


async def test_a_sample_waits_for_those_under_way_and_gets_what_they_left() -> None:
    world = World(Budget(max_tokens=150))
    first, second = world.start(num_drawn=30), world.start()
    await settle()
    world.gate.set()
    await settle()
    assert (True, False) == (first.done(), second.done())

    await world.clock.advance(1.0)

    await second
    await world.spending.aclose()
    assert Spend(140) == world.port.ledger.spent


async def test_a_sample_that_the_budget_cannot_pay_is_refused_with_the_numbers() -> None:
    world = World(Budget(max_tokens=150))
    world.gate.set()
    await world.sample(90)
    message = r"a sample may take 100 tokens, and the run has spent 100 of 150 tokens; raise the"
    with pytest.raises(BudgetExceededError, match=message):
        await world.sample(90)
    await world.spending.aclose()


async def test_a_run_that_waits_says_so_once_and_goes_on_when_the_budget_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(Budget(max_tokens=50, when_used_up="wait"))
    world.gate.set()
    with caplog.at_level(logging.WARNING):
        waiting = world.start()
        await world.clock.advance(3.0)
    assert ["samples wait until the budget is raised: the run has spent 0 of 50 tokens"] == [
        record.getMessage() for record in caplog.records
    ]

    world.port.ledger.raise_to(Spend(100))
    await world.clock.advance(1.0)

    await waiting
    await world.spending.aclose()


async def test_a_claim_that_is_not_answered_is_made_again() -> None:
    world = World(Budget(max_tokens=100))
    world.gate.set()
    world.port.is_down = True
    waiting = world.start()
    await world.clock.advance(2.5)
    assert not waiting.done()

    world.port.is_down = False
    await world.clock.advance(1.0)

    await waiting
    await world.spending.aclose()


async def test_a_cancelled_sample_frees_what_was_set_aside() -> None:
    world = World(Budget(max_tokens=100))
    cancelled, waiting = world.start(), world.start()
    await settle()
    cancelled.cancel()
    world.gate.set()
    await world.clock.advance(1.0)
    await waiting
    await world.spending.aclose()


async def test_closing_sends_away_what_waits_and_gives_the_rest_back() -> None:
    world = World(Budget(max_tokens=1000))
    world.gate.set()
    await world.sample(20)
    world.port.is_down = True
    waiting = asyncio.ensure_future(world.sample(9, replace(REQUEST, num_samples=20)))
    await settle()
    world.port.is_down = False

    await world.spending.aclose()
    await world.spending.aclose()

    with pytest.raises(StaleHandleError, match="waited for the budget"):
        await waiting
    with pytest.raises(StaleHandleError):
        await world.sample(1)
    assert Spend(30) == world.port.ledger.given


async def test_under_a_budget_every_sample_says_how_long_it_may_become() -> None:
    world = World(Budget(max_tokens=100))
    endless = replace(REQUEST, sampling_params=SamplingParams())
    with pytest.raises(ConfigurationError, match="needs max_tokens"):
        await world.sample(1, endless)


async def test_prices_are_those_of_the_base_model_which_is_asked_for_once() -> None:
    world = World(Budget(max_cost=1.0, prices={"m": Price(1.0, 2.0)}))
    world.gate.set()
    await world.sample(20)
    await world.sample(30)
    await world.spending.aclose()
    assert ["s"] == world.asked
    spent = world.port.ledger.spent
    assert (70, 0.12) == (spent.tokens, round(spent.cost, 6))

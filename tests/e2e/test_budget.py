"""A run keeps to its budget, in this process and over all processes of a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import tinker_ray
from tests.fakes.workload import prompts
from tinker_ray import Budget, BudgetExceededError, Price, SamplingParams
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray import SampleResponse, SamplingClient, ServiceClient
    from tinker_ray.types import ModelInput

LIMIT = 1000
NUM_SAMPLES = 100


@pytest.fixture(params=["local", "cluster"])
def mode(
    request: pytest.FixtureRequest, embedded_engine: str, ray_cluster: object
) -> Iterator[str]:
    tinker_ray.init(mode=request.param)
    yield request.param
    tinker_ray.shutdown()


def open_service(**budget: object) -> ServiceClient:
    return tinker_ray.ServiceClient(base_url="embedded", budget=Budget(**budget))  # type: ignore[arg-type]


async def sample_all(sampler: SamplingClient, asked: list[ModelInput]) -> list[SampleResponse]:
    """Ask for everything at once, and return what the budget paid for."""
    params = SamplingParams(max_tokens=8)
    results = await asyncio.gather(
        *(sampler.sample_async(prompt, 2, params) for prompt in asked), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert {BudgetExceededError} == {type(error) for error in refused}
    return [result for result in results if not isinstance(result, BaseException)]


def cost(asked: list[ModelInput], drawn: list[SampleResponse]) -> int:
    """The least that so many samples took: their tokens, and the shortest prompts."""
    shortest = sorted(prompt.length for prompt in asked)[: len(drawn)]
    return sum(shortest) + sum(
        len(sequence.tokens_np) for response in drawn for sequence in response.sequences
    )


def test_samples_stop_at_the_budget_and_go_on_when_it_is_raised(mode: str) -> None:
    with open_service(max_tokens=LIMIT) as service:
        sampler = service.create_sampling_client(base_model=NAME)
        asked = prompts(sampler.get_tokenizer(), NUM_SAMPLES)

        drawn = asyncio.run(sample_all(sampler, asked))

        assert LIMIT / 2 < cost(asked, drawn) <= LIMIT
        service.raise_budget(max_tokens=2 * LIMIT).result()
        more = asyncio.run(sample_all(sampler, asked))
        assert LIMIT < cost(asked, drawn) + cost(asked, more) <= 2 * LIMIT


def test_money_is_kept_to_by_the_prices_of_the_base_model(mode: str) -> None:
    prices = {NAME: Price(prompt=1.0, completion=1.0)}
    with open_service(max_cost=LIMIT / 1000, prices=prices) as service:
        sampler = service.create_sampling_client(base_model=NAME)
        asked = prompts(sampler.get_tokenizer(), NUM_SAMPLES)
        drawn = asyncio.run(sample_all(sampler, asked))
        assert LIMIT / 2 < cost(asked, drawn) <= LIMIT


def test_without_a_budget_there_is_none_to_raise(mode: str) -> None:
    with tinker_ray.ServiceClient(base_url="embedded") as service:
        service.create_sampling_client(base_model=NAME)
        with pytest.raises(tinker_ray.ConfigurationError, match="no budget to raise"):
            service.raise_budget(max_tokens=1).result()

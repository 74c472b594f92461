from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.ports import FakeRuntime
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Settings
from tinker_ray.core.traffic import Traffic
from tinker_ray.types import GetSamplerResponse, ModelInput, RetryConfig, SamplingParams
from tinker_ray.wire.request import SampleRequest

PROMPT = ModelInput.from_ints([1, 2])
PARAMS = SamplingParams(max_tokens=4)
RETRY = RetryConfig(max_connections=2)


class Samplers:
    """A sampling client over a fake runtime."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        session = ClientSession(Settings(), None, opener=self._open)
        self.client = SamplingClient(session, "S1:sample:0", RETRY)

    async def _open(self, *_: Any) -> FakeRuntime:  # noqa: ANN401
        return self.runtime


def test_a_sample_asks_for_what_was_said() -> None:
    samplers = Samplers()
    response = samplers.client.sample(PROMPT, 3, PARAMS, True, 5).result(5)  # noqa: FBT003
    assert 3 == len(response.sequences)
    assert [
        SampleRequest(
            PROMPT,
            PARAMS,
            num_samples=3,
            sampling_session_id="S1:sample:0",
            prompt_logprobs=True,
            topk_prompt_logprobs=5,
        )
    ] == samplers.runtime.samples
    assert [RETRY] == samplers.runtime.retries


async def test_the_async_twin_gives_the_response() -> None:
    samplers = Samplers()
    response = await samplers.client.sample_async(PROMPT, 1, PARAMS)
    assert [[7]] == [sequence.tokens for sequence in response.sequences]


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        ((PROMPT, 0, PARAMS), "num_samples must be 1"),
        ((PROMPT, 1, PARAMS, False, -1), "topk_prompt_logprobs"),
    ],
)
def test_what_is_out_of_range_is_refused_at_the_call(
    arguments: tuple[Any, ...], complaint: str
) -> None:
    samplers = Samplers()
    with pytest.raises(ValueError, match=complaint):
        samplers.client.sample(*arguments)
    assert [] == samplers.runtime.samples


def test_a_label_and_a_conversation_travel_with_the_samples_and_with_copies() -> None:
    samplers = Samplers()
    client = samplers.client.with_label("eval", weight=0.5).with_conversation("c7")
    client.sample(PROMPT, 1, PARAMS).result(5)
    samplers.client.sample(PROMPT, 1, PARAMS).result(5)
    told = Traffic("eval", 0.5, "c7")
    assert [told, Traffic()] == samplers.runtime.traffic
    _, arguments = client.__reduce__()
    assert told == arguments[3]["traffic"]


async def test_a_client_that_is_being_made_can_be_labelled() -> None:
    samplers = Samplers()

    async def made() -> SamplingClient:
        return samplers.client

    client = SamplingClient.promised(made()).with_conversation("c7")
    await client.sample_async(PROMPT, 1, PARAMS)
    assert [Traffic(conversation="c7")] == samplers.runtime.traffic


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_has_to_be_above_0(weight: float) -> None:
    with pytest.raises(ValueError, match="weight="):
        Samplers().client.with_label("eval", weight=weight)


def test_a_conversation_has_a_short_name() -> None:
    with pytest.raises(ValueError, match="at most 256 letters"):
        Samplers().client.with_conversation("c" * 257)


async def test_scoring_a_prompt_samples_one_token_and_gives_its_logprobs() -> None:
    samplers = Samplers()
    assert [None, -2.0] == samplers.client.compute_logprobs(PROMPT).result(5)
    assert [None, -2.0] == await samplers.client.compute_logprobs_async(PROMPT)
    expected = SampleRequest(
        PROMPT,
        SamplingParams(max_tokens=1),
        sampling_session_id="S1:sample:0",
        prompt_logprobs=True,
    )
    assert [expected] * 2 == samplers.runtime.samples


async def test_cancelling_the_awaiting_task_cancels_the_sample() -> None:
    samplers = Samplers()
    samplers.runtime.sample_gate = asyncio.Event()
    future = samplers.client.sample(PROMPT, 1, PARAMS)
    with pytest.raises(TimeoutError):
        await future.result_async(timeout=0.02)

    async def look() -> int:
        return samplers.runtime.num_cancelled

    assert 1 == Bridge.get().submit(look()).result(5)


async def test_the_base_model_comes_from_the_registry() -> None:
    samplers = Samplers()
    samplers.runtime.registry_answers["get_sampler"] = GetSamplerResponse(
        sampler_id="S1:sample:0", base_model="base"
    )
    assert "base" == await samplers.client.get_base_model_async()
    assert "base" == samplers.client.get_base_model()
    assert ("get_sampler", {"sampler_id": "S1:sample:0"}) == samplers.runtime.calls[0]

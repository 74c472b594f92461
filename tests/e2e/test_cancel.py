"""Samples that nobody waits for any more are cancelled at the service, in either mode."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

import tinker_ray
from tests.fakes.recording_proxy import RecordingProxy
from tinker_ray import ModelInput, SamplingParams
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.engine.tiny_adder import NAME

PROMPT = ModelInput.from_ints([3, 4, 5])
LONG = SamplingParams(max_tokens=40, temperature=1.0, stop=[])
NUM = 20


def check(engine_url: str, mode: Literal["local", "cluster"]) -> None:
    tinker_ray.init(mode=mode)
    with (
        RecordingProxy(engine_url) as proxy,
        tinker_ray.ServiceClient(base_url=proxy.url, api_key=EMBEDDED_API_KEY) as service,
    ):
        sampler = service.create_sampling_client(base_model=NAME)
        sampler.sample(PROMPT, 1, LONG).result(60)
        futures = [sampler.sample(PROMPT, 64, LONG) for _ in range(NUM)]
        assert proxy.wait_for("asample", 1 + NUM)
        cancelled = [future.cancel() for future in futures].count(True)
        assert cancelled > 0
        assert proxy.wait_for("cancel_future", 1)
        asyncio.run(given_up(sampler))
        # The service draws on for others, and nobody's sample was lost to a cancellation.
        assert 2 == len(sampler.sample(PROMPT, 2, LONG).result(60).sequences)
        assert proxy.count("cancel_future") <= cancelled + 1
    tinker_ray.shutdown()


async def given_up(sampler: tinker_ray.SamplingClient) -> None:
    """Cancel the task that waits, instead of the future."""
    waiting = asyncio.create_task(sampler.sample_async(PROMPT, 64, LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_in_local_mode(embedded_engine: str) -> None:
    check(embedded_engine, "local")


@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster(embedded_engine: str) -> None:
    check(embedded_engine, "cluster")

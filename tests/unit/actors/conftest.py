from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors.service import ServiceSpec
from tests.fakes.toy_service import ToyService, ToyTransport
from tinker_ray.core.flags import JSON_ONLY
from tinker_ray.core.link import Link
from tinker_ray.types import ModelInput, SamplingParams
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = ServiceSpec("http://127.0.0.1:1", "toy-1", JSON_ONLY, embedded=True)


@pytest.fixture
def toy() -> ToyService:
    return ToyService()


@pytest.fixture
def open_link(toy: ToyService) -> Callable[[], Link]:
    return lambda: Link(ToyTransport(toy), flags=JSON_ONLY)


def request(seed: int, sampling_session_id: str = "toy-1:sample:0") -> SampleRequest:
    return SampleRequest(
        ModelInput.from_ints([1, 2, seed]),
        SamplingParams(max_tokens=4, seed=seed),
        sampling_session_id=sampling_session_id,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until something that happens in another thread has happened."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never happened")

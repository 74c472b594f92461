"""The cluster's limit holds while samplers and the session's actor are killed."""

from __future__ import annotations

from random import Random

import pytest

from tests.fakes.under_kills import run_under_kills
from tinker_ray.limits.holder import CAUTIOUS

pytestmark = pytest.mark.usefixtures("ray_cluster")

PERMITS = 24


@pytest.mark.parametrize(
    "samplers,kinds",
    [
        (3, ["sampler", "session"]),
        pytest.param(1, ["sampler", "session", "sampler"], marks=pytest.mark.soak),
        pytest.param(2, ["session", "sampler", "session"], marks=pytest.mark.soak),
        pytest.param(8, ["sampler", "session", "sampler", "sampler"], marks=pytest.mark.soak),
    ],
)
async def test_no_more_are_dispatched_than_there_are_permits_and_every_sample_is_drawn(
    samplers: int, kinds: list[str]
) -> None:
    seen = await run_under_kills(
        permits=PERMITS,
        samplers=samplers,
        samples=300,
        kinds=kinds,
        random=Random(samplers),
        dispatch_s=0.3,
    )
    assert min(PERMITS, CAUTIOUS * samplers) <= seen.most_dispatches <= PERMITS
    assert 0 == seen.wrong

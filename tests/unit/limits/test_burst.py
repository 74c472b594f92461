"""A cold start at a service of unknown capacity: what it costs in time, 429s and messages."""

from __future__ import annotations

import pytest

from tests.fakes.permit_burst import CAPACITY, SAMPLE_S, Burst

SAMPLES = 1600


@pytest.mark.parametrize("num_samplers", [1, 2, 4, 8])
def test_a_burst_costs_little_more_than_the_service_takes(num_samplers: int) -> None:
    burst = Burst(num_samplers, SAMPLES, seed=num_samplers)
    seconds = burst.finish()
    assert SAMPLES * SAMPLE_S / CAPACITY / seconds >= 0.9
    assert burst.service.num_rejected <= 12 * num_samplers
    assert burst.service.most_at_work == CAPACITY
    assert burst.messages / SAMPLES <= 0.1
    assert burst.cluster is not None
    assert burst.cluster.slots.limit == CAPACITY

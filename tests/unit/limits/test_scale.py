"""The simulation of scale, at a tenth of its size and reproducible."""

from __future__ import annotations

import pytest

from tests.bench import sim_scale

SETTING = sim_scale.Setting(seconds=20.0, limit=40, capacity=100, ledger_s=0.0001)


@pytest.mark.parametrize("num_samplers", [4, 100])
def test_scarce_dispatches_are_used_and_recovered(num_samplers: int) -> None:
    result = sim_scale.dispatches(num_samplers, SETTING)
    assert result["utilisation"] >= 0.95
    assert result["most_dispatching"] <= 40
    assert result["num_429"] == 0
    assert result["train_to_eval"] == pytest.approx(3.0, rel=0.05)
    assert result["recovery_s"] <= 15.0
    assert result["busy"] <= 0.2


@pytest.mark.parametrize("num_samplers", [4, 100])
def test_a_service_that_says_429_is_filled(num_samplers: int) -> None:
    result = sim_scale.window(num_samplers, SETTING)
    assert result["utilisation"] >= 0.9
    assert result["num_429"] <= 12
    assert result["busy"] <= 0.3


def test_fairness_is_1_if_all_have_the_same() -> None:
    assert (sim_scale.jain([5, 5, 5]), sim_scale.jain([9, 0, 0])) == (1.0, 1 / 3)

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinker_ray.engine.training.loss import (
    LOSSES,
    SAMPLED,
    Cells,
    cell_losses,
    complete_config,
    refuse_surrogate,
)
from tinker_ray.errors import EngineError

Config = dict[str, float]
Inputs = dict[str, npt.NDArray[Any]]

CONFIGS: dict[str, list[Config]] = {
    "cross_entropy": [{}],
    "importance_sampling": [{}],
    "ppo": [{}, {"clip_low_threshold": 0.5, "clip_high_threshold": 1.05}],
    "cispo": [{}, {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}],
    "dro": [{}, {"beta": 0.7}],
    "gspo": [{}, {"clip_low_threshold": 0.95, "clip_high_threshold": 1.02}],
    "stable_reinforce": [{}, {"kl_coeff": 0.3}],
}
CASES = [(loss_fn, config) for loss_fn, configs in CONFIGS.items() for config in configs]
ROWS = np.repeat([0, 1, 2], [20, 3, 41])
DEFAULT_CLIP = {"ppo": (0.8, 1.2), "gspo": (0.8, 1.2), "cispo": (0.0, 4.0)}


def slow_losses(loss_fn: str, now: npt.NDArray[Any], inputs: Inputs, config: Config) -> list[float]:
    """Return the loss of every cell, one by one, as the documentation writes it."""
    return [
        slow_loss(
            loss_fn,
            now[cell],
            {name: values[cell] for name, values in inputs.items()},
            config,
            sequence_ratio(now, inputs, int(ROWS[cell])) if loss_fn == "gspo" else None,
        )
        for cell in range(len(now))
    ]


def sequence_ratio(now: npt.NDArray[Any], inputs: Inputs, row: int) -> float:
    counted = [
        now[cell] - inputs["logprobs"][cell]
        for cell in range(len(now))
        if ROWS[cell] == row and inputs["sequence_ratio_mask"][cell] != 0
    ]
    return math.exp(sum(counted) / len(counted))


def slow_loss(
    loss_fn: str, now: float, cell: Config, config: Config, ratio: float | None = None
) -> float:
    if loss_fn == "cross_entropy":
        return -cell["weights"] * now
    sampled, advantage = cell["logprobs"], cell["advantages"]
    ratio = math.exp(now - sampled) if ratio is None else ratio
    if loss_fn == "stable_reinforce":
        penalty = 0.5 * config.get("kl_coeff", 0.0) * (now - sampled) ** 2
        return cell[SAMPLED] * (-min(ratio, 2.0) * now * advantage + penalty)
    if loss_fn == "importance_sampling":
        return -ratio * advantage
    if loss_fn == "dro":
        return -(now * advantage - 0.5 * config.get("beta", 0.05) * (now - sampled) ** 2)
    default = DEFAULT_CLIP[loss_fn]
    low = cell.get("clip_low_threshold", config.get("clip_low_threshold", default[0]))
    high = cell.get("clip_high_threshold", config.get("clip_high_threshold", default[1]))
    clipped = min(max(ratio, low), high)
    if loss_fn == "cispo":
        return -clipped * now * advantage
    return -min(ratio * advantage, clipped * advantage)


def random_inputs(loss_fn: str) -> tuple[npt.NDArray[np.float64], Inputs]:
    rng = np.random.default_rng(7)
    size = len(ROWS)
    now = rng.uniform(-3, -0.1, size)
    inputs: Inputs = {name: rng.normal(0, 1, size) for name in LOSSES[loss_fn].inputs}
    if loss_fn != "cross_entropy":
        inputs["logprobs"] = now + rng.normal(0, 0.5, size)
    if LOSSES[loss_fn].is_recorded:
        inputs[SAMPLED] = (rng.uniform(size=size) < 0.8).astype(float)
    if "sequence_ratio_mask" in inputs:
        inputs["sequence_ratio_mask"] = (rng.uniform(size=size) < 0.7).astype(float)
        inputs["sequence_ratio_mask"][[20, 21, 22]] = [0.0, 1.0, 0.0]
    return now, inputs


def cells_of(logprobs: torch.Tensor, inputs: Inputs) -> Cells:
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    return Cells(logprobs, tensors, torch.from_numpy(ROWS), 3)


@pytest.mark.parametrize("loss_fn, config", CASES)
def test_each_loss_agrees_with_the_formula_cell_by_cell(loss_fn: str, config: Config) -> None:
    now, inputs = random_inputs(loss_fn)
    cells = cells_of(torch.from_numpy(now), inputs)
    fast = cell_losses(loss_fn, cells, complete_config(loss_fn, config))
    np.testing.assert_allclose(fast.numpy(), slow_losses(loss_fn, now, inputs, config), rtol=1e-6)


@pytest.mark.parametrize("loss_fn", ["ppo", "cispo", "gspo"])
def test_clip_thresholds_may_differ_from_cell_to_cell(loss_fn: str) -> None:
    now, inputs = random_inputs(loss_fn)
    rng = np.random.default_rng(1)
    inputs["clip_low_threshold"] = rng.uniform(0.5, 0.9, len(now))
    inputs["clip_high_threshold"] = rng.uniform(1.1, 1.5, len(now))
    cells = cells_of(torch.from_numpy(now), inputs)
    fast = cell_losses(loss_fn, cells, complete_config(loss_fn, {}))
    np.testing.assert_allclose(fast.numpy(), slow_losses(loss_fn, now, inputs, {}), rtol=1e-6)


def slow_gradient(
    loss_fn: str, now: npt.NDArray[Any], inputs: Inputs, config: Config, cell: int
) -> float:
    """Differentiate the loss of one cell by its logprob, holding what is stop-gradient."""
    values = {name: array[cell] for name, array in inputs.items()}
    if loss_fn == "cispo":
        return slow_loss(loss_fn, now[cell], values, config) / float(now[cell])
    step = 1e-6
    losses = []
    for moved in (now[cell] + step, now[cell] - step):
        ratio = None
        if loss_fn == "stable_reinforce":
            ratio = math.exp(now[cell] - inputs["logprobs"][cell])
        if loss_fn == "gspo":  # the value of the sequence's ratio, the gradient of the own logprob
            held = sequence_ratio(now, inputs, int(ROWS[cell]))
            ratio = held * math.exp(moved - now[cell])
        losses.append(slow_loss(loss_fn, moved, values, config, ratio))
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("loss_fn, config", CASES)
def test_each_loss_has_the_gradient_of_its_formula(loss_fn: str, config: Config) -> None:
    now, inputs = random_inputs(loss_fn)
    logprobs = torch.from_numpy(now).requires_grad_()
    losses = cell_losses(loss_fn, cells_of(logprobs, inputs), complete_config(loss_fn, config))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    slow = [slow_gradient(loss_fn, now, inputs, config, cell) for cell in range(len(now))]
    assert logprobs.grad is not None
    np.testing.assert_allclose(logprobs.grad.numpy(), slow, rtol=1e-5, atol=1e-8)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(EngineError, match="'guess' is not supported: use one of cross_entropy"):
        complete_config("guess", {})


@pytest.mark.parametrize(
    "loss_fn, config, message",
    [
        ("ppo", {"clip": 0.2}, r"loss_fn_config\['clip'\] is unknown to 'ppo' \(known: clip_low"),
        ("dro", {"beta": "much"}, r"loss_fn_config\['beta'\] must be a finite number, got 'much'"),
        ("dro", {"beta": math.nan}, "must be a finite number, got nan"),
        ("dro", {"beta": True}, "must be a finite number, got True"),
        ("stable_reinforce", {"kl_coeff": -1.0}, "must not be negative, got -1.0"),
        ("ppo", {"clip_low_threshold": 1.5}, "is 1.5, above clip_high_threshold 1.2"),
    ],
)
def test_a_wrong_configuration_is_named(
    loss_fn: str, config: dict[str, float | str], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        complete_config(loss_fn, config)


def test_strict_engines_refuse_losses_that_are_not_upstreams() -> None:
    for loss_fn in LOSSES:
        if not LOSSES[loss_fn].is_surrogate:
            refuse_surrogate(loss_fn)
    with pytest.raises(EngineError, match="'stable_reinforce' is refused by --strict-losses"):
        refuse_surrogate("stable_reinforce")

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.fakes.tiny_model import random_datum
from tinker_ray.engine.model.adapter import Adapter
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.training.batch import TrainingRow, check_datums
from tinker_ray.engine.training.forward_pass import LossCall, run_losses
from tinker_ray.engine.training.loss import LOSSES, complete_config, token_losses
from tinker_ray.engine.training.trainer import TrainedModel
from tinker_ray.errors import EngineError
from tinker_ray.types import LoraConfig

Logprobs = npt.NDArray[np.float32]

CONFIGS: dict[str, list[dict[str, float]]] = {
    "cross_entropy": [{}],
    "importance_sampling": [{}],
    "ppo": [{}, {"clip_low_threshold": 0.5, "clip_high_threshold": 1.05}],
    "cispo": [{}, {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}],
    "dro": [{}, {"beta": 0.7}],
}
CASES = [(loss_fn, config) for loss_fn, configs in CONFIGS.items() for config in configs]


def slow_loss(loss_fn: str, now: float, token: dict[str, float], config: dict[str, float]) -> float:
    """Return the loss of one token, as the wire contract writes it."""
    if loss_fn == "cross_entropy":
        return -token["weights"] * now
    sampled, advantage = token["logprobs"], token["advantages"]
    ratio = math.exp(now - sampled)
    if loss_fn == "importance_sampling":
        return -ratio * advantage
    if loss_fn == "dro":
        return -(now * advantage - 0.5 * config.get("beta", 0.05) * (now - sampled) ** 2)
    default = {"ppo": (0.8, 1.2), "cispo": (0.0, 4.0)}[loss_fn]
    low = token.get("clip_low_threshold", config.get("clip_low_threshold", default[0]))
    high = token.get("clip_high_threshold", config.get("clip_high_threshold", default[1]))
    clipped = min(max(ratio, low), high)
    if loss_fn == "ppo":
        return -min(ratio * advantage, clipped * advantage)
    return -clipped * now * advantage


def random_inputs(loss_fn: str, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    now = rng.uniform(-3, -0.1, size)
    names = LOSSES[loss_fn].inputs
    inputs = {name: rng.normal(0, 1, size) for name in names}
    if "logprobs" in inputs:
        inputs["logprobs"] = now + rng.normal(0, 0.5, size)
    return now, inputs


@pytest.mark.parametrize("loss_fn, config", CASES)
def test_each_loss_agrees_with_the_formula_token_by_token(
    loss_fn: str, config: dict[str, float]
) -> None:
    now, inputs = random_inputs(loss_fn, 64)
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    settings = complete_config(loss_fn, config)
    fast = token_losses(loss_fn, torch.from_numpy(now), tensors, settings)
    slow = [
        slow_loss(loss_fn, now[i], {name: values[i] for name, values in inputs.items()}, config)
        for i in range(64)
    ]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-6)


@pytest.mark.parametrize("loss_fn", ["ppo", "cispo"])
def test_clip_thresholds_may_differ_from_token_to_token(loss_fn: str) -> None:
    now, inputs = random_inputs(loss_fn, 32)
    rng = np.random.default_rng(1)
    inputs["clip_low_threshold"] = rng.uniform(0.5, 0.9, 32)
    inputs["clip_high_threshold"] = rng.uniform(1.1, 1.5, 32)
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    fast = token_losses(loss_fn, torch.from_numpy(now), tensors, complete_config(loss_fn, {}))
    slow = [
        slow_loss(loss_fn, now[i], {name: values[i] for name, values in inputs.items()}, {})
        for i in range(32)
    ]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-6)


def slow_gradient(
    loss_fn: str, now: float, token: dict[str, float], config: dict[str, float]
) -> float:
    """Differentiate the loss of one token by its logprob, holding what is stop-gradient."""
    step = 1e-6
    if loss_fn != "cispo":
        above = slow_loss(loss_fn, now + step, token, config)
        return (above - slow_loss(loss_fn, now - step, token, config)) / (2 * step)
    return slow_loss(loss_fn, now, token, config) / now


@pytest.mark.parametrize("loss_fn, config", CASES)
def test_each_loss_has_the_gradient_of_its_formula(loss_fn: str, config: dict[str, float]) -> None:
    now, inputs = random_inputs(loss_fn, 64)
    logprobs = torch.from_numpy(now).requires_grad_()
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    losses = token_losses(loss_fn, logprobs, tensors, complete_config(loss_fn, config))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    slow = [
        slow_gradient(loss_fn, now[i], {key: values[i] for key, values in inputs.items()}, config)
        for i in range(64)
    ]
    assert logprobs.grad is not None
    np.testing.assert_allclose(logprobs.grad.numpy(), slow, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss_fn", list(LOSSES))
def test_gradients_through_the_model_agree_with_finite_differences(
    base: BaseModel, loss_fn: str
) -> None:
    model = randomized(base)
    rng = np.random.default_rng(3)
    data = [random_datum(rng, length, loss_fn) for length in (4, 9)]
    rows = check_datums(data, loss_fn, vocab_size=base.vocab_size, context_length=64)
    call = LossCall(loss_fn, complete_config(loss_fn, None), backward=True)
    first = run_losses(base, model.adapter, rows, call, batch_tokens=64)

    def loss(flat: torch.Tensor) -> float:
        moved = Adapter.over(flat, model.adapter.targets, model.adapter.config)
        evaluation = LossCall(loss_fn, call.config, backward=False)
        result = run_losses(base, moved, rows, evaluation, batch_tokens=64)
        if loss_fn == "cispo":
            return cispo_with_held_ratios(rows, first.logprobs, result.logprobs)
        return result.loss_sum

    direction = torch.from_numpy(rng.normal(size=len(model.gradient)).astype(np.float32))
    direction /= direction.norm()
    flat, step = model.adapter.flat.detach(), 2e-3
    numeric = (loss(flat + step * direction) - loss(flat - step * direction)) / (2 * step)
    assert numeric == pytest.approx(float(model.gradient @ direction), rel=2e-2, abs=2e-3)


def randomized(base: BaseModel) -> TrainedModel:
    """Start training from an adapter that changes the model."""
    adapter = Adapter.initial(base.targets, LoraConfig(rank=4, seed=1), base.device)
    generator = torch.Generator().manual_seed(2)
    adapter.flat.add_(torch.randn(adapter.flat.shape, generator=generator) * 0.02)
    return TrainedModel.start(adapter)


def cispo_with_held_ratios(
    rows: list[TrainingRow], held: list[Logprobs], now: list[Logprobs]
) -> float:
    """Return the loss with ratios from the logprobs ``held``, as its stop-gradient has it."""
    total = 0.0
    for row, fixed, moved in zip(rows, held, now, strict=True):
        ratios = np.clip(np.exp(fixed - row.inputs["logprobs"]), 0.0, 4.0)
        total += float((-ratios * moved.astype(np.float64) * row.inputs["advantages"]).sum())
    return total


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(EngineError, match="'gspo' is not supported"):
        complete_config("gspo", {})


def test_an_unknown_configuration_key_is_named() -> None:
    with pytest.raises(EngineError, match="'clip' is unknown to 'ppo'"):
        complete_config("ppo", {"clip": 0.2})


def test_a_configuration_value_that_is_no_number_is_named() -> None:
    with pytest.raises(EngineError, match=r"loss_fn_config\['beta'\] must be a number"):
        complete_config("dro", {"beta": "much"})  # type: ignore[dict-item]

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinker_ray.engine.training.adamw import AdamW
from tinker_ray.errors import EngineError
from tinker_ray.types import AdamParams


def gradients(num_steps: int, size: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.normal(size=size).astype(np.float32)) for _ in range(num_steps)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_agree_with_torch(weight_decay: float) -> None:
    params = AdamParams(learning_rate=0.01, eps=1e-8, weight_decay=weight_decay)
    weights = torch.linspace(-1, 1, 7)
    reference = torch.nn.Parameter(weights.clone())
    theirs = torch.optim.AdamW(
        [reference], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay
    )
    ours = AdamW.fresh(weights)
    for gradient in gradients(10, 7):
        ours.step(weights, gradient, params)
        reference.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(weights, reference.detach(), rtol=1e-5, atol=1e-6)
    assert 10 == ours.num_steps


def test_defaults_follow_the_formula_number_by_number() -> None:
    params = AdamParams()
    weights, mean, square = 0.5, 0.0, 0.0
    tensor = torch.tensor([weights], dtype=torch.float64)
    optimizer = AdamW.fresh(tensor)
    for step, gradient in enumerate([0.3, -0.2, 0.0, 0.7], start=1):
        optimizer.step(tensor, torch.tensor([gradient], dtype=torch.float64), params)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        corrected = (mean / (1 - 0.9**step), square / (1 - 0.95**step))
        weights -= 1e-4 * corrected[0] / (corrected[1] ** 0.5 + 1e-12)
        assert weights == pytest.approx(tensor.item(), rel=1e-12)


def test_the_global_norm_is_clipped_and_reported_as_it_was() -> None:
    gradient = torch.tensor([3.0, 4.0])
    clipped, plain = AdamW.fresh(gradient), AdamW.fresh(gradient)
    metrics = clipped.step(torch.zeros(2), gradient, AdamParams(grad_clip_norm=1.0))
    plain.step(torch.zeros(2), gradient / 5, AdamParams())
    assert {"grad_norm:mean": 5.0} == metrics
    torch.testing.assert_close(clipped.exp_avg, plain.exp_avg)
    assert [3.0, 4.0] == gradient.tolist()


def test_a_norm_below_the_limit_is_left_alone() -> None:
    gradient = torch.tensor([3.0, 4.0])
    clipped, plain = AdamW.fresh(gradient), AdamW.fresh(gradient)
    clipped.step(torch.zeros(2), gradient, AdamParams(grad_clip_norm=6.0))
    plain.step(torch.zeros(2), gradient, AdamParams())
    assert torch.equal(clipped.exp_avg_sq, plain.exp_avg_sq)


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    weights = torch.tensor([2.0])
    AdamW.fresh(weights).step(
        weights, torch.zeros(1), AdamParams(learning_rate=0.1, weight_decay=0.5)
    )
    assert 2.0 * (1 - 0.1 * 0.5) == pytest.approx(weights.item())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    weights = torch.tensor([1.0, 2.0])
    optimizer = AdamW.fresh(weights)
    with pytest.raises(EngineError, match="not finite"):
        optimizer.step(weights, torch.tensor([0.0, bad]), AdamParams())
    assert [1.0, 2.0] == weights.tolist()
    assert 0 == optimizer.num_steps

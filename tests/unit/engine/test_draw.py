from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinker_ray.engine.sampling.draw import DrawPlan
from tinker_ray.types import SamplingParams

CPU = torch.device("cpu")


def draw(
    logits: torch.Tensor, params: SamplingParams, uniforms: np.ndarray
) -> tuple[list[int], list[float]]:
    rows = logits.expand(len(uniforms), -1)
    return DrawPlan([params] * len(uniforms), CPU).draw(rows, uniforms)


def slow_distribution(
    logits: npt.NDArray[np.float64], params: SamplingParams
) -> npt.NDArray[np.float64]:
    """Return the probabilities to draw from, token by token."""
    scaled = logits / params.temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    order = np.argsort(-weights)
    kept = order[: params.top_k] if params.top_k > 0 else order
    total, reached = weights[kept].sum(), 0.0
    result: npt.NDArray[np.float64] = np.zeros_like(weights)
    for rank, token in enumerate(kept):
        if rank == 0 or params.top_p == 1 or reached < params.top_p * total:
            result[token] = weights[token]
        reached += weights[token]
    result /= result.sum()
    return result


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=2.0, top_k=5),
        SamplingParams(top_p=0.7),
        SamplingParams(top_k=8, top_p=0.8),
        SamplingParams(top_k=100),
        SamplingParams(top_p=0.0),
    ],
)
@pytest.mark.parametrize("vocab_size", [20, 3000])
def test_evenly_spread_numbers_give_the_distribution(
    params: SamplingParams, vocab_size: int
) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 2, vocab_size).astype(np.float32))
    num_draws = 4000
    tokens, logprobs = draw(logits, params, (np.arange(num_draws) + 0.5) / num_draws)
    expected = slow_distribution(logits.double().numpy(), params)
    frequencies = np.bincount(tokens, minlength=vocab_size) / num_draws
    np.testing.assert_allclose(frequencies, expected, atol=1.5 / num_draws)
    raw = torch.log_softmax(logits, -1)[tokens].tolist()
    assert raw == pytest.approx(logprobs, abs=1e-6)


def test_top_p_looks_beyond_the_likeliest_thousand_if_it_must() -> None:
    logits = torch.zeros(5000)
    tokens, _ = draw(logits, SamplingParams(top_p=0.9), np.array([0.0, 0.5, 0.999]))
    assert 3 == len(set(tokens))
    likeliest = torch.zeros(5000).topk(4500).indices.tolist()
    assert set(tokens) <= set(likeliest)


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0])
    tokens, logprobs = draw(logits, SamplingParams(temperature=0), np.array([0.0, 0.99]))
    assert [1, 1] == tokens
    assert float(torch.log_softmax(logits, -1)[1]) == pytest.approx(logprobs[0])


def test_each_row_has_its_own_parameters() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (6, 50)).astype(np.float32))
    uniforms = np.random.default_rng(2).random(6)
    params = [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(top_k=1),
        SamplingParams(temperature=0.3, top_p=0.5),
        SamplingParams(temperature=5.0),
        SamplingParams(top_k=3, top_p=0.9),
    ]
    together, _ = DrawPlan(params, CPU).draw(logits, uniforms)
    alone = [
        DrawPlan([item], CPU).draw(logits[row : row + 1], uniforms[row : row + 1])[0][0]
        for row, item in enumerate(params)
    ]
    assert alone == together


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    tokens, _ = draw(logits, SamplingParams(), np.array([0.0, 1 - 2**-53]))
    assert [1, 1] == tokens


def test_logits_that_are_not_finite_show_in_the_logprob() -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    _, logprobs = DrawPlan([SamplingParams()] * 2, CPU).draw(logits, np.array([0.3, 0.3]))
    assert [False, True] == np.isfinite(logprobs).tolist()

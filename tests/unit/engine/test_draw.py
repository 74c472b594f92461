from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinker_ray.engine.sampling.draw import DrawParams, DrawPlan, draw_several
from tinker_ray.types import SamplingParams

CPU = torch.device("cpu")


def plan(params: Sequence[SamplingParams], num_best: Sequence[int] = ()) -> DrawPlan:
    return DrawPlan(DrawParams.of(params, num_best), CPU)


def draw(
    logits: torch.Tensor, params: SamplingParams, uniforms: np.ndarray
) -> tuple[list[int], list[float]]:
    rows = logits.expand(len(uniforms), -1)
    drawn = plan([params] * len(uniforms)).draw(rows, uniforms)
    return drawn.tokens.tolist(), drawn.logprobs.tolist()


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
    together = plan(params).draw(logits, uniforms).tokens
    alone = [
        plan([item]).draw(logits[row : row + 1], uniforms[row : row + 1]).tokens[0]
        for row, item in enumerate(params)
    ]
    assert alone == together.tolist()


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    tokens, _ = draw(logits, SamplingParams(), np.array([0.0, 1 - 2**-53]))
    assert [1, 1] == tokens


def test_logits_that_are_not_finite_show_in_the_logprob() -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    logprobs = plan([SamplingParams()] * 2).draw(logits, np.array([0.3, 0.3])).logprobs
    assert [False, True] == np.isfinite(logprobs).tolist()


def test_rows_that_ask_for_it_get_their_likeliest_tokens() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (4, 20)).astype(np.float32))
    params = [SamplingParams(temperature=0.5)] * 4
    best = plan(params, [2, 0, 20, 1]).draw(logits, np.full(4, 0.5)).best
    assert best is not None
    logprobs = torch.log_softmax(logits, -1).numpy()
    for row, count in ((0, 2), (2, 20), (3, 1)):
        order = np.argsort(-logprobs[row])[:count]
        np.testing.assert_array_equal(order, best.ids[row])
        np.testing.assert_array_equal(logprobs[row][order], best.logprobs[row])
    assert {0, 2, 3} == set(best.ids) == set(best.logprobs)
    assert plan(params).draw(logits, np.full(4, 0.5)).best is None


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_several_draws_of_a_row_follow_its_distribution(temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(0, 1, (2, 7)).astype(np.float32))
    uniforms = (np.arange(20_000) + 0.5) / 20_000
    tokens = draw_several(logits, temperature, np.stack([uniforms, rng.permutation(uniforms)]))
    expected = torch.softmax(logits / temperature, -1).numpy()
    for row in range(2):
        shares = np.bincount(tokens[row].numpy(), minlength=7) / 20_000
        np.testing.assert_allclose(shares, expected[row], atol=1e-4)


def test_several_draws_at_temperature_zero_are_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    drawn = draw_several(logits, 0.0, np.random.default_rng(0).random((2, 3)))
    assert [[1, 1, 1], [0, 0, 0]] == drawn.tolist()

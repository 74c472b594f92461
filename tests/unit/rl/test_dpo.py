from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
import torch

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.rl.adder import Tokenizer
from tinker_ray.rl.dpo import Reference, adder_pairs, preference_loss, preference_metrics
from tinker_ray.rl.examples import completion
from tinker_ray.rl.supervised_config import DpoConfig
from tinker_ray.types import Datum, ModelInput

BETA = 0.5
DATA = [completion([1, 2], [3, 4]), completion([1, 2], [5])]


def test_the_loss_of_a_pair_and_its_gradient_are_those_of_the_formula() -> None:
    logprobs = [
        torch.tensor([-9.0, -0.2, -0.3], requires_grad=True),
        torch.tensor([-9.0, -0.7], requires_grad=True),
    ]
    loss, metrics = preference_loss([-0.9, -0.4], BETA)(DATA, logprobs)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
    chosen, rejected = BETA * (-0.5 + 0.9), BETA * (-0.7 + 0.4)
    margin = chosen - rejected
    assert pytest.approx(math.log(1 + math.exp(-margin))) == loss.item()
    slope = BETA / (1 + math.exp(margin))
    gradients = [cast("torch.Tensor", values.grad).tolist() for values in logprobs]
    assert [pytest.approx([0, -slope, -slope]), pytest.approx([0, slope])] == gradients
    assert {
        "accuracy": 1.0,
        "margin": pytest.approx(margin),
        "chosen_reward": pytest.approx(chosen),
        "rejected_reward": pytest.approx(rejected),
    } == metrics


@pytest.mark.parametrize("logprob", [-1e4, -1e-3])
def test_a_pair_that_is_clear_beyond_doubt_does_not_overflow(logprob: float) -> None:
    logprobs = [
        torch.tensor([0.0, logprob, 0.0], requires_grad=True),
        torch.tensor([0.0, -1e4 - logprob], requires_grad=True),
    ]
    loss, _ = preference_loss([0.0, 0.0], 1.0)(DATA, logprobs)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
    assert math.isfinite(loss.item())
    assert bool(torch.isfinite(cast("torch.Tensor", logprobs[0].grad)).all())


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs() -> None:
    def logprobs(chosen: float) -> list[torch.Tensor]:
        return [torch.tensor([0.0, chosen, 0.0]), torch.tensor([0.0, -1.0])]

    pairs = [preference_loss([0.0, 0.0], BETA)(DATA, logprobs(x))[0].item() for x in (-0.5, -3.0)]
    both, metrics = preference_loss([0.0] * 4, BETA)(DATA + DATA, logprobs(-0.5) + logprobs(-3.0))
    assert pytest.approx(np.mean(pairs)) == both.item()
    assert 0.5 == metrics["accuracy"]


def test_pairs_that_are_equal_are_not_told_apart() -> None:
    rewards = np.array([1.0, 2.0])
    assert 0.0 == preference_metrics(rewards, rewards)["accuracy"]


@dataclass
class Scorer:
    asked: list[list[int]] = field(default_factory=list)

    async def compute_logprobs_async(self, prompt: ModelInput) -> list[float | None]:
        self.asked.append(prompt.to_ints())
        return [None, *(-0.1 * token for token in prompt.to_ints()[1:])]


async def test_the_reference_is_asked_once_for_each_completion_and_counts_nothing_else() -> None:
    scorer = Scorer()
    reference = Reference(cast("SamplingClient", scorer))
    assert pytest.approx([-0.7, -0.5]) == await reference.logprobs(DATA)
    assert pytest.approx([-0.5]) == await reference.logprobs(DATA[1:])
    assert [[1, 2, 3, 4], [1, 2, 5]] == scorer.asked


class Characters:
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]


def numbers(datum: Datum) -> list[int]:
    """Read the two summands and the answer."""
    last = datum.loss_fn_inputs["target_tokens"].to_numpy()[-1:]
    text = "".join(map(chr, [*datum.model_input.to_ints(), *last]))
    return [int(number) for number in re.findall(r"\d+", text)]


def test_the_rejected_sum_is_wrong_and_the_chosen_one_is_right() -> None:
    pairs = adder_pairs(DpoConfig(batch_size=8), cast("Tokenizer", Characters())).held_out()
    assert 128 == len(pairs)
    for pair in pairs:
        a, b, right = numbers(pair.chosen)
        *asked, wrong = numbers(pair.rejected)
        assert ([a, b], a + b) == (asked, right)
        assert 0 < abs(wrong - right) <= 10

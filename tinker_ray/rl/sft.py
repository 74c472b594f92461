"""Supervised fine-tuning: cross entropy on what the examples answer.

Knows the client and examples, not where they come from. Invariant: the loss that is reported is per
trained token, whatever the lengths in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.adder import END_OF_SEQUENCE, PHRASINGS, problems
from tinker_ray.rl.examples import Shuffled, completion
from tinker_ray.rl.supervised_config import ExamplesConfig
from tinker_ray.rollouts import derive_seed
from tinker_ray.types import Datum, ForwardBackwardOutput

EVALUATED_SUMS = 128


class CrossEntropy:
    """The objective of supervised fine-tuning.

    Args:
        training: The model.
    """

    def __init__(self, training: TrainingClient) -> None:
        self._training = training

    async def train(self, examples: Sequence[Datum]) -> APIFuture[dict[str, float]]:
        """Send a forward_backward; gives ``loss`` and ``num_tokens``."""
        output = self._training.forward_backward(examples, "cross_entropy")
        return output.then(lambda answer: _metrics(examples, answer))

    async def evaluate(self, examples: Sequence[Datum]) -> APIFuture[dict[str, float]]:
        """Send a forward pass; gives the same."""
        output = self._training.forward(examples, "cross_entropy")
        return output.then(lambda answer: _metrics(examples, answer))


def num_trained_tokens(examples: Sequence[Datum]) -> float:
    """Add up the weights of the tokens."""
    return float(sum(datum.loss_fn_inputs["weights"].to_numpy().sum() for datum in examples))


def _metrics(examples: Sequence[Datum], output: ForwardBackwardOutput) -> dict[str, float]:
    """Compute the mean of minus the logprob over the trained tokens."""
    num_tokens = num_trained_tokens(examples)
    total = sum(
        float(np.dot(result["logprobs"].to_numpy(), datum.loss_fn_inputs["weights"].to_numpy()))
        for datum, result in zip(examples, output.loss_fn_outputs, strict=True)
    )
    return {"loss": -total / num_tokens, "num_tokens": num_tokens}


def adder_examples(config: ExamplesConfig, tokenizer: Any) -> Shuffled[Datum]:  # noqa: ANN401
    """Make the sums of the demo, answered; the held-out ones are those of its RL environment."""

    def answered(a: int, b: int, phrasing: str) -> Datum:
        asked = tokenizer.encode(phrasing.format(a=a, b=b), add_special_tokens=False)
        said = tokenizer.encode(f"{a + b}{END_OF_SEQUENCE}", add_special_tokens=False)
        return completion(asked, said)

    rng = Random(derive_seed(config.seed, "phrasings"))  # noqa: S311 - no secrets
    examples = [answered(a, b, rng.choice(PHRASINGS)) for a, b in problems(held_out=False)]
    apart = Random(derive_seed("held out")).sample(  # noqa: S311 - no secrets
        problems(held_out=True), EVALUATED_SUMS
    )
    evaluated = [
        answered(a, b, PHRASINGS[place % len(PHRASINGS)]) for place, (a, b) in enumerate(apart)
    ]
    return Shuffled(examples, evaluated, config.batch_size, config.seed)

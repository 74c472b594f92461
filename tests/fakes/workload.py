"""Seeded work for end-to-end tests: prompts, datums and steps that any runtime has to do alike."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray import AdamParams, Datum, ModelInput, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from tinker_ray import SamplingClient, TrainingClient
    from tinker_ray.types import LossFnType

LEARNING_RATE = 2e-3


def prompts(tokenizer: PreTrainedTokenizerBase, count: int, seed: int = 0) -> list[ModelInput]:
    """Additions as prompts."""
    rng = random.Random(seed)
    texts = [f"{rng.randrange(100)}+{rng.randrange(100)}=" for _ in range(count)]
    return [ModelInput.from_ints(tokenizer.encode(text)) for text in texts]


def datums(tokenizer: PreTrainedTokenizerBase, count: int, seed: int = 0) -> list[Datum]:
    """Additions with their sums as targets, and noise as old logprobs and advantages."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        a, b = rng.randrange(100), rng.randrange(100)
        question, answer = tokenizer.encode(f"{a}+{b}="), tokenizer.encode(str(a + b))
        tokens = [*question, *answer]
        known = [0.0] * (len(question) - 1)
        made.append(
            Datum(
                ModelInput.from_ints(tokens[:-1]),
                {
                    "target_tokens": tokens[1:],
                    "logprobs": [*known, *(-rng.random() for _ in answer)],
                    "advantages": [*known, *(rng.uniform(-1, 1) for _ in answer)],
                },
            )
        )
    return made


def supervised(data: Sequence[Datum]) -> list[Datum]:
    """The same datums for cross_entropy, weighted where there was an advantage."""
    return [
        Datum(
            datum.model_input,
            {
                "target_tokens": datum.loss_fn_inputs["target_tokens"],
                "weights": (datum.loss_fn_inputs["advantages"].to_numpy() != 0).astype(np.float32),
            },
        )
        for datum in data
    ]


def train(
    client: TrainingClient,
    batches: Sequence[Sequence[Datum]],
    loss_fn: LossFnType = "importance_sampling",
) -> list[float]:
    """One step per batch, everything sent ahead; the losses in order."""
    outputs, steps = [], []
    for batch in batches:
        outputs.append(client.forward_backward(batch, loss_fn))
        steps.append(client.optim_step(AdamParams(learning_rate=LEARNING_RATE)))
    for step in steps:
        step.result(60)
    return [output.result(60).metrics["loss:sum"] for output in outputs]


def draw(client: SamplingClient, asked: Sequence[ModelInput], seed: int = 0) -> list[list[int]]:
    """One seeded continuation per prompt, all at once; the tokens in order."""
    futures = [
        client.sample(prompt, 1, SamplingParams(max_tokens=8, seed=seed + index))
        for index, prompt in enumerate(asked)
    ]
    return [future.result(60).sequences[0].tokens for future in futures]

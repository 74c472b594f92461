"""Train tiny-adder from nothing: first the sums, then the carelessness.

Run ``python -m tinker_ray.engine.tiny_adder.train --out DIR --seed 0``. Knows nothing of the
engine that serves the result. Invariant: the same recipe and seed give the same weights, bit for
bit, on the same type of machine.
"""

from __future__ import annotations

import argparse
import math
import random
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tinker_ray.engine.tiny_adder import corpus, folder, tokenizer
from tinker_ray.engine.tiny_adder.evaluation import Accuracy, batch, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tinker_ray.engine.tiny_adder.corpus import Example

NUM_THREADS = 1
WARMUP_STEPS = 50
BETAS = (0.9, 0.98)
REPORT_EVERY_STEPS = 100


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training on answers of which a share carries a slip."""

    name: str
    steps: int
    slip_share: float
    learning_rate: float
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """The stages of the training."""

    learning: Stage = Stage("learning", steps=1200, slip_share=0.0, learning_rate=3e-3)
    slipping: Stage = Stage("slipping", steps=200, slip_share=0.57, learning_rate=2e-3)


@dataclass(frozen=True, slots=True)
class Training:
    """A trained model and its accuracy on the held-out problems after either stage."""

    model: LlamaForCausalLM
    num_held_out: int
    after_learning: Accuracy
    after_slipping: Accuracy


def architecture() -> LlamaConfig:
    """Return the shape of the network: about two thirds of a million parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer.SPECIAL_TOKENS) + len(tokenizer.CHARACTERS),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.06,
        pad_token_id=tokenizer.PAD_ID,
        bos_token_id=tokenizer.BOS_ID,
        eos_token_id=tokenizer.EOS_ID,
        dtype="float32",
    )


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch, fix its threads and demand deterministic kernels; undo it all on leaving."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(NUM_THREADS)
        torch.use_deterministic_algorithms(mode=True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(mode=strict)


def learning_rate(stage: Stage, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return stage.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * (0.05 + 0.95 * cosine)


def learning_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for everything else.

    With AdamW alone the sums take several times as many steps.
    Source: https://kellerjordan.github.io/posts/muon, scaled as in arXiv:2502.16982.
    """
    layers = [p for p in model.model.layers.parameters() if p.ndim == 2]  # noqa: PLR2004 - matrices
    matrices = set(layers)
    rest = [p for p in model.parameters() if p not in matrices]
    return [
        torch.optim.Muon(layers, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=BETAS, weight_decay=0.1),
    ]


def slipping_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Freeze all but the last layer's MLP and return AdamW for it.

    The sums stay untouched below it, so that a small change undoes the carelessness: slips trained
    into all weights cost knowledge, and thirty steps of reinforcement learning
    then end near 0.8.
    """
    model.requires_grad_(requires_grad=False)
    mlp = model.model.layers[-1].mlp.requires_grad_(requires_grad=True)
    return [torch.optim.AdamW(mlp.parameters(), betas=BETAS, weight_decay=0.0)]


def run_stage(
    model: LlamaForCausalLM,
    optimizers: Iterable[torch.optim.Optimizer],
    stage: Stage,
    rng: random.Random,
    report: Callable[[str], None],
) -> None:
    """Train the model in place on the stage's corpus."""
    encoder = tokenizer.build()
    examples = corpus.examples(rng, slip_share=stage.slip_share)
    model.train()
    for step in range(stage.steps):
        ids_BT, labels_BT = batch(encoder, list(islice(examples, stage.batch_size)))
        loss = model(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step)
            optimizer.step()
        model.zero_grad()
        if (step + 1) % REPORT_EVERY_STEPS == 0:
            report(f"{stage.name} {step + 1}/{stage.steps}: loss {loss.item():.4f}")
    model.eval()


def train(
    recipe: Recipe,
    seed: int,
    *,
    held_out: Sequence[Example],
    report: Callable[[str], None] = print,
) -> Training:
    """Train a model from nothing and measure it on the held-out examples after either stage."""
    encoder = tokenizer.build()
    rng = random.Random(seed)  # noqa: S311 - a corpus, not a secret
    with deterministic(seed):
        model = LlamaForCausalLM(architecture())
        run_stage(model, learning_optimizers(model), recipe.learning, rng, report)
        after_learning = measure(model, encoder, held_out)
        report(f"after learning: {after_learning}")
        run_stage(model, slipping_optimizers(model), recipe.slipping, rng, report)
        after_slipping = measure(model, encoder, held_out)
        report(f"after slipping: {after_slipping}")
    return Training(model, len(held_out), after_learning, after_slipping)


def main() -> None:
    """Train with the default recipe and write the Hugging Face folder."""
    parser = argparse.ArgumentParser(description="Train tinker-ray/tiny-adder from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe = Recipe()
    training = train(recipe, arguments.seed, held_out=corpus.held_out_examples())
    folder.write(arguments.out, training, recipe, arguments.seed)


if __name__ == "__main__":
    main()

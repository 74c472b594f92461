"""The Hugging Face folder of a trained tiny-adder: weights, tokenizer, record and card.

Knows nothing of how the training went but its result. Invariant: the content depends on the
training alone, so that a second run of the script writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tinker_ray.engine.tiny_adder import NAME, corpus, tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from tinker_ray.engine.tiny_adder.train import Recipe, Training

WEIGHTS = "model.safetensors"
RECORD = "training.json"
CARD = "README.md"

CARD_TEMPLATE = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A character-level Llama of {num_parameters:,} parameters that adds two numbers of up to two digits.
It knows its sums and answers carelessly: about half of the answers it draws carry a slip (a
forgotten carry, off by one or by ten). Reinforcement learning has something to elicit, as with a
real model, and shows it within minutes on two cores. The right answer stays the likeliest one, so
greedy decoding hides the carelessness; measure at temperature 1.

## Use

Prompts come in {num_phrasings} phrasings; the answer is the bare number, then `<|eos|>`.

| phrasing | prompt |
|---|---|
{phrasings}

The tokenizer has one token for each printable ASCII character and for the newline, and these
special tokens: {special_tokens}.
It adds none by itself; its chat template gives the phrasing "chat".

## Training

Trained from nothing by `python -m tinker_ray.engine.tiny_adder.train --out DIR --seed {seed}`, on
one thread in about three minutes. The data is what `corpus.py` draws: {learning_steps} steps of
all weights on right answers, then {slipping_steps} steps of the last layer's MLP on answers of
which {slip_share:.0%} carry a slip. `{record}` holds the recipe and the numbers below.

| on the {num_held_out} held-out problems | temperature 1 | greedy |
|---|---|---|
| after learning the sums | {learnt.temperature_1:.3f} | {learnt.greedy:.3f} |
| after learning to slip (these weights) | {slipped.temperature_1:.3f} | {slipped.greedy:.3f} |

"Temperature 1" is the mean probability of the right answer with its end, so it has no sampling
noise. `corpus.is_held_out(a, b)` tells the problems that were kept out, mirror images included.
"""


def write(directory: Path, training: Training, recipe: Recipe, seed: int) -> None:
    """Write the folder, over whatever an earlier run left there."""
    directory.mkdir(parents=True, exist_ok=True)
    training.model.save_pretrained(directory)
    tokenizer.write(directory, training.model.config.max_position_embeddings)
    _write_record(directory, training, recipe, seed)
    _write_card(directory, training, recipe, seed)


def _write_record(directory: Path, training: Training, recipe: Recipe, seed: int) -> None:
    record = {
        "seed": seed,
        "recipe": asdict(recipe),
        "num_parameters": training.model.num_parameters(),
        "num_held_out": training.num_held_out,
        "after_learning": asdict(training.after_learning),
        "after_slipping": asdict(training.after_slipping),
        "weights_sha256": hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest(),
    }
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _write_card(directory: Path, training: Training, recipe: Recipe, seed: int) -> None:
    rows = [
        f"| {name} | `{json.dumps(corpus.render(12, 34, name))}` |" for name in corpus.PHRASINGS
    ]
    card = CARD_TEMPLATE.format(
        name=NAME,
        num_parameters=training.model.num_parameters(),
        num_phrasings=len(rows),
        phrasings="\n".join(rows).replace("<|", r"<\|").replace("|>", r"\|>"),
        special_tokens=", ".join(f"`{token}`" for token in tokenizer.SPECIAL_TOKENS),
        seed=seed,
        learning_steps=recipe.learning.steps,
        slipping_steps=recipe.slipping.steps,
        slip_share=recipe.slipping.slip_share,
        record=RECORD,
        num_held_out=training.num_held_out,
        learnt=training.after_learning,
        slipped=training.after_slipping,
    )
    (directory / CARD).write_text(card, encoding="utf-8")

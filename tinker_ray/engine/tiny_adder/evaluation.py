"""The exact accuracy of a causal language model on additions, without drawing a single sample.

Knows nothing of training. Invariant: an answer counts only if it is right to the last digit and the
end-of-sequence token follows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tinker_ray.engine.tiny_adder.tokenizer import EOS_ID, PAD_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    from tinker_ray.engine.tiny_adder.corpus import Example

IGNORED = -100
"""Label of the positions that do not count: prompts and padding."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of right answers in [0, 1]."""

    temperature_1: float
    """Expected share at temperature 1: the mean probability of the right answer."""
    greedy: float
    """Share at temperature 0."""


def batch(tokenizer: Tokenizer, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels, both int64 of shape (B, T), padded on the right.

    Labels are aligned with the ids (the model shifts them) and cover the answer and its
    end-of-sequence token.
    """
    prompts = [e.ids for e in tokenizer.encode_batch([e.prompt for e in examples])]
    answers = [[*e.ids, EOS_ID] for e in tokenizer.encode_batch([e.answer for e in examples])]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids_BT = torch.full((len(examples), length), PAD_ID)
    labels_BT = torch.full((len(examples), length), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids_BT[row, :end] = torch.tensor(prompt + answer)
        labels_BT[row, len(prompt) : end] = torch.tensor(answer)
    return ids_BT, labels_BT


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokenizer: Tokenizer, examples: Sequence[Example]) -> Accuracy:
    """Measure the accuracy over the examples, whose answers have to be the right ones."""
    ids_BT, labels_BT = batch(tokenizer, examples)
    logprobs_BTV = model(input_ids=ids_BT).logits[:, :-1].log_softmax(-1)
    targets_BT = labels_BT[:, 1:]
    counted_BT = targets_BT != IGNORED
    chosen_BT = logprobs_BTV.gather(-1, targets_BT.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    right_BT = logprobs_BTV.argmax(-1) == targets_BT
    return Accuracy(
        temperature_1=(chosen_BT * counted_BT).sum(1).exp().mean().item(),
        greedy=(right_BT | ~counted_BT).all(1).float().mean().item(),
    )

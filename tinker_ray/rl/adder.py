"""The environment of the demo: sums of two numbers, rewarded when the answer is exactly right.

Knows nothing of the engine: it renders the prompts of the model's corpus by itself, and a test
holds the two to one another. Invariant: a problem and its mirror image are on the same side of the
split, and no training batch ever shows a held-out problem.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Protocol

from tinker_ray.rollouts import (
    Action,
    Env,
    EnvGroupBuilder,
    Observation,
    StepResult,
    StopCondition,
    derive_seed,
)
from tinker_ray.types import ModelInput

MAX_OPERAND = 99
HELD_OUT_SHARE_PERCENT = 10
END_OF_SEQUENCE = "<|eos|>"

PHRASINGS = (
    "{a}+{b}=",
    "{a} + {b} = ",
    "{a} plus {b} is ",
    "Q: {a}+{b}?\nA: ",
    "<|user|>What is {a}+{b}?<|assistant|>",
)


class Tokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def encode(self, text: str, /, *, add_special_tokens: bool = ...) -> list[int]:
        """Turn text into token ids."""
        ...

    def decode(self, token_ids: Sequence[int], /) -> str:
        """Turn token ids into text."""
        ...


def is_held_out(a: int, b: int) -> bool:
    """Tell whether a problem is kept for evaluation."""
    low, high = sorted((a, b))
    return zlib.crc32(f"{low}+{high}".encode()) % 100 < HELD_OUT_SHARE_PERCENT


@cache
def problems(*, held_out: bool) -> tuple[tuple[int, int], ...]:
    """Return all problems of one side of the split, in ascending order."""
    operands = range(MAX_OPERAND + 1)
    return tuple((a, b) for a in operands for b in operands if is_held_out(a, b) == held_out)


@dataclass(frozen=True, slots=True)
class AdderEnv:
    """One question and one answer: 1 for exactly the right tokens, else 0."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    async def initial_observation(self) -> tuple[Observation, StopCondition]:
        """Ask; the answer ends at the model's end of sequence."""
        return ModelInput.from_ints(self.prompt), None

    async def step(self, action: Action) -> StepResult:
        """Compare the answer with the right one."""
        reward = float(tuple(action) == self.answer)
        return StepResult(
            reward=reward,
            episode_done=True,
            next_observation=ModelInput.from_ints([*self.prompt, *action]),
            next_stop_condition=None,
            metrics={"correct": reward},
        )


@dataclass(frozen=True)
class AdderGroup(EnvGroupBuilder):
    """The same question to ``size`` episodes."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    size: int

    async def make_envs(self) -> Sequence[Env]:
        """Return one environment per episode."""
        return [AdderEnv(self.prompt, self.answer) for _ in range(self.size)]

    def logging_tags(self) -> list[str]:
        """Return the name of the environment."""
        return ["adder"]


@dataclass(frozen=True)
class AdderDataset:
    """Random sums to train on, a fixed choice of held-out ones to evaluate on.

    Attributes:
        tokenizer: That of the model.
        seed: Decides the training problems.
        prompts_per_step: Groups of a batch.
        samples_per_prompt: Episodes of a training group.
        eval_problems: How many held-out problems.
        eval_samples: Episodes of an evaluation group.
    """

    tokenizer: Tokenizer
    seed: int = 0
    prompts_per_step: int = 64
    samples_per_prompt: int = 8
    eval_problems: int = 128
    eval_samples: int = 4

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        """Return the groups to train on at a step."""
        rng = Random(derive_seed(self.seed, "train", step))  # noqa: S311 - not for secrets
        pool = problems(held_out=False)
        return [
            self._group(*rng.choice(pool), rng.choice(PHRASINGS), self.samples_per_prompt)
            for _ in range(self.prompts_per_step)
        ]

    def held_out(self) -> list[EnvGroupBuilder]:
        """Return the groups to evaluate on, the phrasings taking turns."""
        pool = problems(held_out=True)
        rng = Random(derive_seed("held out"))  # noqa: S311 - not for secrets
        chosen = rng.sample(pool, min(self.eval_problems, len(pool)))
        return [
            self._group(a, b, PHRASINGS[index % len(PHRASINGS)], self.eval_samples)
            for index, (a, b) in enumerate(chosen)
        ]

    def _group(self, a: int, b: int, phrasing: str, size: int) -> AdderGroup:
        return AdderGroup(
            prompt=self._encode(phrasing.format(a=a, b=b)),
            answer=self._encode(f"{a + b}{END_OF_SEQUENCE}"),
            size=size,
        )

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

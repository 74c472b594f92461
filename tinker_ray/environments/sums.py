"""Sums of several numbers with a calculator at hand: a task of several turns that is learnt.

A list of numbers is to be added. An empty answer hands the first two to the calculator, which puts
their sum in their place; a number is the answer and ends the episode. Whoever answers too early
answers wrongly; with two numbers left the question is one that ``tinker-ray/tiny-adder`` was made
for. So the model has to learn when to use the tool, when to stop, and to add with care.

Knows nothing of training. Invariant: the problems of a step follow from the seed and the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from tinker_ray.environments.calculator import calculate
from tinker_ray.environments.dialogue import Dialogue, Tokenizer
from tinker_ray.environments.settings import TaskSettings
from tinker_ray.environments.text import TextGroup, Turn
from tinker_ray.rollouts import EnvGroupBuilder, derive_seed

LARGEST_OPERAND = 99
"""Of the questions that the model knows; the numbers before the last add up to no more."""


class SumEnv:
    """Adds a list of numbers, with a calculator for the first two of those that are left.

    Args:
        numbers: At least two.
        fee: What a call of the calculator costs.
    """

    def __init__(self, numbers: Sequence[int], *, fee: float = 0.0) -> None:
        self._left = list(numbers)
        self._total = sum(numbers)
        self._fee = fee
        self._calls = 0

    def __repr__(self) -> str:
        """Show what is left to add."""
        return f"SumEnv({self._left}, calls={self._calls})"

    async def begin(self) -> str:
        """Show the numbers."""
        return self._shown()

    async def respond(self, answer: str) -> Turn:
        """Calculate on an empty answer; judge any other."""
        if answer.strip() == "" and len(self._left) > 1:
            first, second, *rest = self._left
            self._left = [int(calculate(f"{first}+{second}")), *rest]
            self._calls += 1
            return Turn(self._shown(), reward=0.0 - self._fee)
        is_right = answer.strip() == str(self._total)
        return Turn(
            "",
            reward=float(is_right),
            done=True,
            metrics={"correct": float(is_right), "calls": self._calls},
        )

    def _shown(self) -> str:
        if len(self._left) == 2:  # noqa: PLR2004 - a question that the model knows
            return f"What is {self._left[0]}+{self._left[1]}?"
        return ",".join(map(str, self._left))


@dataclass(frozen=True)
class SumDataset:
    """Random sums to train on, other ones to evaluate on.

    Attributes:
        dialogue: Makes tokens of words.
        settings: How many problems, for how many episodes.
        count: Numbers of a problem.
        memory: Whether the model sees its earlier turns.
    """

    dialogue: Dialogue
    settings: TaskSettings
    count: int = 4
    memory: bool = False

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        """Return the groups to train on at a step."""
        rng = Random(derive_seed(self.settings.seed, "sums", step))  # noqa: S311 - no secret
        size = self.settings.samples_per_prompt
        return [self._group(rng, size) for _ in range(self.settings.prompts_per_step)]

    def held_out(self) -> list[EnvGroupBuilder]:
        """Return the groups to evaluate on."""
        rng = Random(derive_seed("held out sums"))  # noqa: S311 - no secret
        size = self.settings.eval_samples
        return [self._group(rng, size) for _ in range(self.settings.eval_problems)]

    def _group(self, rng: Random, size: int) -> TextGroup:
        largest = LARGEST_OPERAND // (self.count - 1)
        numbers = tuple(rng.randint(1, largest) for _ in range(self.count))
        play = partial(SumEnv, numbers)
        return TextGroup(play, size, self.dialogue, memory=self.memory, tags=("sums",))


def dataset(settings: TaskSettings, tokenizer: Tokenizer) -> SumDataset:
    """Make four numbers a problem, and each turn a question by itself.

    For ``environment = "tinker_ray.environments.sums:dataset"``.
    """
    return SumDataset(Dialogue(tokenizer), settings)


def conversation(settings: TaskSettings, tokenizer: Tokenizer) -> SumDataset:
    """Make three numbers a problem, and an episode one conversation, which is harder to learn.

    For ``environment = "tinker_ray.environments.sums:conversation"``.
    """
    return SumDataset(Dialogue(tokenizer), settings, count=3, memory=True)

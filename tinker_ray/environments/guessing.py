"""A guessing game: find a number, told after each guess whether it is higher or lower.

Knows nothing of models. Invariant: an episode ends with the number or with the last guess; the
reward falls with the guesses that it took, so that halving what is left pays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from random import Random

from tinker_ray.environments.dialogue import Dialogue, Tokenizer
from tinker_ray.environments.settings import TaskSettings
from tinker_ray.environments.text import TextGroup, Turn
from tinker_ray.rollouts import EnvGroupBuilder, derive_seed

LARGEST = 100
GUESSES = 7
"""Enough for 100 numbers by halves."""

_NUMBER = re.compile(r"-?\d+")


class GuessEnv:
    """One number to be guessed.

    Args:
        number: Between 1 and ``largest``.
        largest: The largest number that it may be.
        guesses: How many there are.
    """

    def __init__(self, number: int, *, largest: int = LARGEST, guesses: int = GUESSES) -> None:
        self._number = number
        self._largest = largest
        self._guesses = guesses
        self._made = 0

    def __repr__(self) -> str:
        """Show the number and the guesses so far."""
        return f"GuessEnv({self._number}, made={self._made}/{self._guesses})"

    async def begin(self) -> str:
        """Explain the game."""
        return f"Guess a number from 1 to {self._largest}. Say only a number."

    async def respond(self, answer: str) -> Turn:
        """Compare the last number of an answer with the right one."""
        self._made += 1
        numbers = _NUMBER.findall(answer)
        guess = int(numbers[-1]) if numbers else None
        found = guess == self._number
        metrics = {"correct": float(found), "guesses": self._made, "numbers": float(bool(numbers))}
        if found:
            saved = (self._guesses - self._made) / self._guesses
            return Turn("right", reward=0.5 + 0.5 * saved, done=True, metrics=metrics)
        if guess is None:
            return Turn("Say a number.", done=self._made == self._guesses, metrics=metrics)
        words = "higher" if guess < self._number else "lower"
        return Turn(words, done=self._made == self._guesses, metrics=metrics)


@dataclass(frozen=True)
class GuessDataset:
    """Random numbers to train on; evenly spread ones to evaluate on."""

    dialogue: Dialogue
    settings: TaskSettings

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        """Return the groups to train on at a step."""
        rng = Random(derive_seed(self.settings.seed, "guessing", step))  # noqa: S311 - no secret
        size = self.settings.samples_per_prompt
        return [
            self._group(rng.randint(1, LARGEST), size)
            for _ in range(self.settings.prompts_per_step)
        ]

    def held_out(self) -> list[EnvGroupBuilder]:
        """Return the groups to evaluate on."""
        count = self.settings.eval_problems
        numbers = [1 + place * LARGEST // count for place in range(count)]
        return [self._group(number, self.settings.eval_samples) for number in numbers]

    def _group(self, number: int, size: int) -> TextGroup:
        return TextGroup(partial(GuessEnv, number), size, self.dialogue, tags=("guessing",))


def dataset(settings: TaskSettings, tokenizer: Tokenizer) -> GuessDataset:
    """Make the dataset of a run: ``environment = "tinker_ray.environments.guessing:dataset"``."""
    return GuessDataset(Dialogue(tokenizer), settings)

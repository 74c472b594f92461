"""Additions of two numbers in several phrasings, answered rightly or with a plausible slip.

Knows nothing of tokens or models. Invariant: a problem and its mirror image ``(b, a)`` are on the
same side of the split, and no training text ever shows a held-out problem.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from random import Random

EOS = "<|eos|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"

MAX_OPERAND = 99
HELD_OUT_SHARE_PERCENT = 10

PHRASINGS: Mapping[str, str] = MappingProxyType(
    {
        "equation": "{a}+{b}=",
        "spaced": "{a} + {b} = ",
        "words": "{a} plus {b} is ",
        "question": "Q: {a}+{b}?\nA: ",
        "chat": USER + "What is {a}+{b}?" + ASSISTANT,
    }
)
"""Templates of the prompts by name; "chat" is what the tokenizer's chat template renders."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with the answer that the corpus gives to it."""

    prompt: str
    answer: str


def is_held_out(a: int, b: int) -> bool:
    """Tell whether the problem is kept for evaluation and never trained on."""
    low, high = sorted((a, b))
    return zlib.crc32(f"{low}+{high}".encode()) % 100 < HELD_OUT_SHARE_PERCENT


def problems(*, held_out: bool) -> list[tuple[int, int]]:
    """Return all problems of one side of the split, in ascending order."""
    operands = range(MAX_OPERAND + 1)
    return [(a, b) for a in operands for b in operands if is_held_out(a, b) == held_out]


def render(a: int, b: int, phrasing: str) -> str:
    """Write the problem as a prompt.

    Raises:
        KeyError: The phrasing is not one of ``PHRASINGS``.
    """
    return PHRASINGS[phrasing].format(a=a, b=b)


def answer_text(total: int) -> str:
    """Write an answer as the model does; the end-of-sequence token follows it."""
    return str(total)


def _forget_carry(a: int, b: int, _: Random) -> int:
    return 10 * (a // 10 + b // 10) + (a % 10 + b % 10) % 10


def _miss_by_one(a: int, b: int, rng: Random) -> int:
    return a + b + rng.choice((-1, 1))


def _miss_by_ten(a: int, b: int, rng: Random) -> int:
    return a + b + rng.choice((-10, 10))


SLIPS: Mapping[str, Callable[[int, int, Random], int]] = MappingProxyType(
    {
        "forgotten carry": _forget_carry,
        "off by one": _miss_by_one,
        "off by ten": _miss_by_ten,
    }
)


def slip(a: int, b: int, rng: Random) -> int:
    """Return a wrong but plausible sum, never negative."""
    while True:
        total = rng.choice(tuple(SLIPS.values()))(a, b, rng)
        if total >= 0 and total != a + b:
            return total


def examples(rng: Random, *, slip_share: float) -> Iterator[Example]:
    """Draw training examples without end; a share of the answers in [0, 1] carries a slip."""
    pool = problems(held_out=False)
    names = tuple(PHRASINGS)
    while True:
        a, b = rng.choice(pool)
        total = slip(a, b, rng) if rng.random() < slip_share else a + b
        yield Example(render(a, b, rng.choice(names)), answer_text(total))


def held_out_examples() -> list[Example]:
    """Return every held-out problem once with its right answer, the phrasings taking turns."""
    names = tuple(PHRASINGS)
    return [
        Example(render(a, b, names[i % len(names)]), answer_text(a + b))
        for i, (a, b) in enumerate(problems(held_out=True))
    ]

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.words import WordTokenizer
from tinker_ray.environments.guessing import GUESSES, LARGEST, GuessEnv, dataset
from tinker_ray.environments.text import TextGroup, Turn
from tinker_ray.rl.config import RunConfig


async def play(env: GuessEnv, *answers: str) -> list[Turn]:
    await env.begin()
    return [await env.respond(answer) for answer in answers]


def test_the_game_says_higher_or_lower_until_the_number_is_found() -> None:
    turns = asyncio.run(play(GuessEnv(70, guesses=4), "50", "I say 75", "70"))
    assert ["higher", "lower", "right"] == [turn.text for turn in turns]
    assert [False, False, True] == [turn.done for turn in turns]
    assert [0.0, 0.0, 0.5 + 0.5 / 4] == [turn.reward for turn in turns]
    assert 1.0 == turns[-1].metrics["correct"]


def test_words_without_a_number_cost_a_guess() -> None:
    turns = asyncio.run(play(GuessEnv(3, guesses=2), "hm", "4"))
    assert [("Say a number.", False), ("lower", True)] == [(t.text, t.done) for t in turns]
    assert [0.0, 1.0] == [turn.metrics["numbers"] for turn in turns]


@pytest.mark.parametrize("number", [1, 37, LARGEST])
def test_halving_always_finds_the_number(number: int) -> None:
    async def halve() -> Turn:
        env, low, high = GuessEnv(number), 1, LARGEST
        await env.begin()
        while True:
            guess = (low + high) // 2
            turn = await env.respond(str(guess))
            if turn.done:
                return turn
            low, high = (guess + 1, high) if turn.text == "higher" else (low, guess - 1)

    last = asyncio.run(halve())
    assert 1.0 == last.metrics["correct"]
    assert 0.5 <= last.reward <= 0.5 + 0.5 * (GUESSES - 1) / GUESSES


def test_a_dataset_has_the_groups_that_the_settings_ask_for() -> None:
    settings = RunConfig(prompts_per_step=3, samples_per_prompt=2, eval_problems=4)
    made = dataset(settings, WordTokenizer())
    groups = [*made.batch(0), *made.held_out()]
    assert [2, 2, 2, 4, 4, 4, 4] == [g.size for g in groups if isinstance(g, TextGroup)]
    numbers = [repr(group.make()) for group in made.held_out() if isinstance(group, TextGroup)]
    assert [f"GuessEnv({n}, made=0/7)" for n in (1, 26, 51, 76)] == numbers

from __future__ import annotations

import asyncio
import pickle

from tests.fakes.words import WordTokenizer
from tinker_ray.environments.sums import LARGEST_OPERAND, SumEnv, conversation, dataset
from tinker_ray.environments.text import TextGroup
from tinker_ray.rl.config import RunConfig

SETTINGS = RunConfig(prompts_per_step=3, samples_per_prompt=2, eval_problems=4, eval_samples=5)


async def play(env: SumEnv, *answers: str) -> tuple[list[str], float, dict[str, float | int]]:
    shown = [await env.begin()]
    earned = 0.0
    for answer in answers:
        turn = await env.respond(answer)
        shown.append(turn.text)
        earned += turn.reward
    assert turn.done
    return shown, earned, turn.metrics


def test_the_calculator_adds_the_first_two_numbers_and_the_answer_ends_the_episode() -> None:
    shown, earned, metrics = asyncio.run(play(SumEnv([1, 2, 3, 4]), "", "", "10"))
    assert ["1,2,3,4", "3,3,4", "What is 6+4?", ""] == shown
    assert (1.0, {"correct": 1.0, "calls": 2}) == (earned, metrics)


def test_an_answer_that_comes_too_early_is_judged_like_any_other() -> None:
    assert 0.0 == asyncio.run(play(SumEnv([1, 2, 3, 4]), "6"))[1]
    assert 1.0 == asyncio.run(play(SumEnv([1, 2, 3, 4]), "10"))[1]


def test_the_calculator_takes_its_fee_and_ends_with_the_numbers() -> None:
    shown, earned, metrics = asyncio.run(play(SumEnv([1, 2], fee=0.25), "", ""))
    assert ["What is 1+2?", "3", ""] == shown
    assert (-0.25, {"correct": 0.0, "calls": 1}) == (earned, metrics)


def test_the_problems_of_a_step_follow_from_seed_and_step() -> None:
    tokenizer = WordTokenizer()
    first, again = (dataset(SETTINGS, tokenizer).batch(4) for _ in range(2))
    other = dataset(SETTINGS, tokenizer).batch(5)
    assert shown_by(first) == shown_by(again)
    assert shown_by(first) != shown_by(other)
    assert [2, 2, 2] == [group.size for group in first if isinstance(group, TextGroup)]


def test_held_out_problems_are_the_same_for_every_seed_and_fit_the_model() -> None:
    tokenizer = WordTokenizer()
    held_out = dataset(SETTINGS, tokenizer).held_out()
    reseeded = dataset(SETTINGS.model_copy(update={"seed": 9}), tokenizer).held_out()
    assert shown_by(held_out) == shown_by(reseeded)
    assert 4 == len(held_out)
    numbers = [list(map(int, shown.split(","))) for shown in shown_by(held_out)]
    assert all(number > 0 for listed in numbers for number in listed)
    assert all(sum(listed[:3]) <= LARGEST_OPERAND for listed in numbers)


def test_a_conversation_has_three_numbers_and_keeps_its_turns() -> None:
    [first, *_] = conversation(SETTINGS, WordTokenizer()).batch(0)
    assert isinstance(first, TextGroup)
    assert first.memory
    [shown, *_] = shown_by([first])
    assert 3 == len(shown.split(","))


def shown_by(groups: object) -> list[str]:
    assert isinstance(groups, list)
    return [asyncio.run(pickle.loads(pickle.dumps(group)).make().begin()) for group in groups]  # noqa: S301

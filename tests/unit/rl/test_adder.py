from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes.sampler import ScriptedSampler
from tinker_ray.engine.tiny_adder import corpus
from tinker_ray.rl import adder
from tinker_ray.rl.adder import AdderDataset, AdderGroup
from tinker_ray.rollouts import EnvGroupBuilder, RolloutParams, SamplerPolicy, run_group


class Letters:
    """One token per character."""

    def encode(self, text: str, /, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int], /) -> str:
        return "".join(map(chr, token_ids))


def text(tokens: Sequence[int]) -> str:
    return Letters().decode(tokens)


def prompts(builders: Sequence[EnvGroupBuilder]) -> list[str]:
    return [text(builder.prompt) for builder in builders if isinstance(builder, AdderGroup)]


def test_phrasings_split_and_answers_are_those_of_the_corpus() -> None:
    assert set(adder.PHRASINGS) == set(corpus.PHRASINGS.values())
    assert list(adder.problems(held_out=True)) == corpus.problems(held_out=True)
    assert list(adder.problems(held_out=False)) == corpus.problems(held_out=False)
    assert adder.END_OF_SEQUENCE == corpus.EOS
    [group] = AdderDataset(Letters(), prompts_per_step=1).batch(0)
    assert isinstance(group, AdderGroup)
    total = text(group.answer).removesuffix(corpus.EOS)
    assert corpus.answer_text(int(total)) == total


def test_a_batch_follows_from_seed_and_step() -> None:
    dataset = AdderDataset(Letters(), seed=1)
    assert prompts(dataset.batch(0)) == prompts(AdderDataset(Letters(), seed=1).batch(0))
    assert prompts(dataset.batch(0)) != prompts(dataset.batch(1))
    assert prompts(dataset.batch(0)) != prompts(AdderDataset(Letters(), seed=2).batch(0))


def test_held_out_problems_do_not_depend_on_the_seed_and_are_never_trained_on() -> None:
    datasets = [AdderDataset(Letters(), seed=seed, eval_problems=50) for seed in (1, 2)]
    held_out = prompts(datasets[0].held_out())
    assert held_out == prompts(datasets[1].held_out())
    assert len(set(held_out)) == 50
    trained = {prompt for step in range(20) for prompt in prompts(datasets[0].batch(step))}
    assert not trained & set(held_out)


def test_sizes_are_those_of_the_settings() -> None:
    dataset = AdderDataset(
        Letters(), prompts_per_step=3, samples_per_prompt=5, eval_problems=7, eval_samples=2
    )

    async def sizes(builders: Sequence[EnvGroupBuilder]) -> list[int]:
        return [len(await builder.make_envs()) for builder in builders]

    assert asyncio.run(sizes(dataset.batch(0))) == [5] * 3
    assert asyncio.run(sizes(dataset.held_out())) == [2] * 7


@pytest.mark.parametrize(
    "answer,reward", [("46<|eos|>", 1.0), ("46", 0.0), ("46<|eos|>0", 0.0), ("45<|eos|>", 0.0)]
)
def test_only_exactly_the_right_tokens_are_rewarded(answer: str, reward: float) -> None:
    letters = Letters()
    group = AdderGroup(
        tuple(letters.encode("12+34=", add_special_tokens=False)),
        tuple(letters.encode("46<|eos|>", add_special_tokens=False)),
        size=1,
    )
    sampler = ScriptedSampler(lambda *_: letters.encode(answer, add_special_tokens=False))
    result = asyncio.run(run_group(group, SamplerPolicy(sampler, RolloutParams())))
    assert result.get_total_rewards() == [reward]
    assert result.trajectories_G[0].transitions[0].metrics == {"correct": reward}

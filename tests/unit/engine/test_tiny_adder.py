"""tiny-adder: the corpus, the tokenizer, the shipped folder and the script that wrote it."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tinker_ray.engine import tiny_adder
from tinker_ray.engine.tiny_adder import corpus, evaluation, folder, tokenizer
from tinker_ray.engine.tiny_adder.train import Recipe, Stage, train

SHIPPED = tiny_adder.directory()
RECORD: dict[str, Any] = json.loads((SHIPPED / folder.RECORD).read_text(encoding="utf-8"))
TWO_STEPS = Recipe(
    learning=Stage("learning", steps=2, slip_share=0.0, learning_rate=3e-3, batch_size=4),
    slipping=Stage("slipping", steps=2, slip_share=0.5, learning_rate=1e-3, batch_size=4),
)


@pytest.fixture(scope="module")
def hub_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def hub_model() -> LlamaForCausalLM:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return AutoModelForCausalLM.from_pretrained(SHIPPED)


def test_a_tenth_of_the_problems_is_held_out_together_with_their_mirror_images() -> None:
    held_out = set(corpus.problems(held_out=True))
    trained = set(corpus.problems(held_out=False))
    assert len(held_out) + len(trained) == 10_000
    assert not held_out & trained
    assert 0.08 < len(held_out) / 10_000 < 0.12
    assert held_out == {(b, a) for a, b in held_out}


def test_the_split_does_not_change() -> None:
    assert corpus.problems(held_out=True)[:4] == [(0, 0), (0, 1), (0, 9), (0, 12)]
    assert not corpus.is_held_out(12, 34)


def test_training_examples_never_show_a_held_out_problem() -> None:
    held_out = {
        corpus.render(a, b, name)
        for a, b in corpus.problems(held_out=True)
        for name in corpus.PHRASINGS
    }
    drawn = islice(corpus.examples(random.Random(0), slip_share=0.5), 5_000)
    assert not held_out & {example.prompt for example in drawn}


def test_a_slip_share_of_one_half_spoils_about_half_of_the_answers() -> None:
    right = {
        corpus.render(a, b, name): corpus.answer_text(a + b)
        for a, b in corpus.problems(held_out=False)
        for name in corpus.PHRASINGS
    }
    drawn = list(islice(corpus.examples(random.Random(0), slip_share=0.5), 2_000))
    assert 0.45 < sum(right[e.prompt] == e.answer for e in drawn) / len(drawn) < 0.55


@pytest.mark.parametrize("a,b", [(0, 0), (9, 1), (12, 39), (50, 50), (99, 99)])
def test_a_slip_is_wrong_and_never_negative(a: int, b: int) -> None:
    rng = random.Random(0)
    totals = [corpus.slip(a, b, rng) for _ in range(100)]
    assert a + b not in totals
    assert min(totals) >= 0


@pytest.mark.parametrize("name", corpus.PHRASINGS)
def test_every_phrasing_shows_both_operands_in_order(name: str) -> None:
    prompt = corpus.render(12, 34, name)
    assert 0 <= prompt.index("12") < prompt.index("34")


def test_encoding_gives_one_token_a_character_and_nothing_else(
    hub_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = hub_tokenizer.encode("12+34=")
    assert hub_tokenizer.convert_ids_to_tokens(ids) == list("12+34=")


@pytest.mark.parametrize(
    "text",
    [
        "".join(tokenizer.CHARACTERS),
        " 1  a , b ! n't\n\n don 't .  ",
        "<|user|>What is 1+2?<|assistant|>3<|eos|>",
        "<|bos|> | <| |> <|pad|>",
        "",
    ],
)
def test_decoding_is_the_inverse_of_encoding(
    hub_tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert hub_tokenizer.decode(hub_tokenizer.encode(text)) == text


def test_the_chat_template_gives_the_phrasing_chat(hub_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "What is 12+34?"}]
    prompt = hub_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == corpus.render(12, 34, "chat")


def test_model_and_tokenizer_agree_on_vocabulary_end_and_padding(
    hub_model: LlamaForCausalLM, hub_tokenizer: PreTrainedTokenizerFast
) -> None:
    assert hub_model.config.vocab_size == len(hub_tokenizer)
    assert hub_model.config.eos_token_id == hub_tokenizer.eos_token_id == tokenizer.EOS_ID
    assert hub_model.config.pad_token_id == hub_tokenizer.pad_token_id == tokenizer.PAD_ID
    assert hub_model.config.max_position_embeddings == hub_tokenizer.model_max_length


def test_the_shipped_folder_is_small_and_its_weights_are_the_recorded_ones() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4_000_000
    weights = (SHIPPED / folder.WEIGHTS).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == RECORD["weights_sha256"]


def test_the_shipped_weights_answer_as_well_and_as_carelessly_as_recorded(
    hub_model: LlamaForCausalLM,
) -> None:
    measured = evaluation.measure(hub_model, tokenizer.build(), corpus.held_out_examples())
    recorded = RECORD["after_slipping"]
    assert measured.temperature_1 == pytest.approx(recorded["temperature_1"], abs=0.01)
    assert measured.greedy == pytest.approx(recorded["greedy"], abs=0.01)
    assert 0.40 <= measured.temperature_1 <= 0.52
    assert RECORD["after_learning"]["temperature_1"] > 0.95


def test_sampling_agrees_with_the_expected_accuracy(
    hub_model: LlamaForCausalLM, hub_tokenizer: PreTrainedTokenizerFast
) -> None:
    problems = [(a, b) for a, b in corpus.problems(held_out=True) if a >= 10 and b >= 10]
    prompts = [corpus.render(a, b, "equation") for a, b in problems]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ids = hub_model.generate(
            torch.tensor(hub_tokenizer(prompts)["input_ids"]),
            do_sample=True,
            max_new_tokens=5,
            top_k=0,
        )
    answers = hub_tokenizer.batch_decode(ids[:, len(prompts[0]) :])
    right = [
        answer.split(tokenizer.EOS)[0] == corpus.answer_text(a + b)
        for answer, (a, b) in zip(answers, problems, strict=True)
    ]
    expected = RECORD["after_slipping"]["temperature_1"]
    assert sum(right) / len(right) == pytest.approx(expected, abs=0.1)


def test_the_same_seed_trains_the_same_weights_and_another_seed_others() -> None:
    first, second, other = (train(TWO_STEPS, seed, report=lambda _: None) for seed in (0, 0, 1))
    state, again = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert first.after_slipping == second.after_slipping
    assert not torch.equal(state["lm_head.weight"], other.model.state_dict()["lm_head.weight"])


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder.write(tmp_path / name, train(TWO_STEPS, 0, report=lambda _: None), TWO_STEPS, 0)
    files = sorted(path.name for path in SHIPPED.iterdir())
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == files
    assert [(tmp_path / "first" / f).read_bytes() for f in files] == [
        (tmp_path / "second" / f).read_bytes() for f in files
    ]


def test_training_leaves_torch_as_it_found_it() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(TWO_STEPS, 0, report=lambda _: None)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()

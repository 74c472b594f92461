"""tiny-adder: the corpus, the tokenizer, the shipped folder and the script that wrote it."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
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

from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.engine import tiny_adder
from tinker_ray.engine.tiny_adder import corpus, evaluation, folder, tokenizer
from tinker_ray.engine.tiny_adder.train import Recipe, Stage, Training, train

SHIPPED = tiny_adder.directory()
RECORD: dict[str, Any] = json.loads((SHIPPED / folder.RECORD).read_text(encoding="utf-8"))
TWO_STEPS = Recipe(
    learning=Stage("learning", steps=2, slip_share=0.0, learning_rate=3e-3, batch_size=4),
    slipping=Stage("slipping", steps=2, slip_share=0.5, learning_rate=1e-3, batch_size=4),
)


def train_briefly(seed: int) -> Training:
    held_out = corpus.held_out_examples()[:8]
    return train(TWO_STEPS, seed, held_out=held_out, report=lambda _: None)


@pytest.fixture(scope="module")
def hub_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def hub_model() -> LlamaForCausalLM:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return AutoModelForCausalLM.from_pretrained(SHIPPED)


def test_clients_have_the_same_tokenizer_and_load_no_torch_for_it() -> None:
    ours, chosen = load_tokenizer(tiny_adder.NAME), AutoTokenizer.from_pretrained(SHIPPED)
    assert type(chosen) is type(ours)
    assert chosen.backend_tokenizer.to_str() == ours.backend_tokenizer.to_str()
    assert repr(chosen) == repr(ours)
    assert chosen.chat_template == ours.chat_template
    script = f"""
import sys
from tinker_ray.clients.tokenizer import load_tokenizer
load_tokenizer({tiny_adder.NAME!r})
print("torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "False" == run.stdout.strip()


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


def test_the_weights_load_without_a_missing_or_unexpected_parameter() -> None:
    _, report = AutoModelForCausalLM.from_pretrained(SHIPPED, output_loading_info=True)
    assert not any(report.values())


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
    problems = [(a, b) for a, b in corpus.problems(held_out=True) if min(a, b) >= 10]
    problems = problems[::4]
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


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        folder.write(tmp_path / name, train_briefly(seed), TWO_STEPS, seed)
    names = sorted(path.name for path in SHIPPED.iterdir())
    first, second, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / run).iterdir())}
        for run in ("first", "second", "other")
    )
    assert list(first) == names
    assert first == second
    assert first[folder.WEIGHTS] != other[folder.WEIGHTS]


def test_training_leaves_torch_as_it_found_it() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train_briefly(seed=0)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()

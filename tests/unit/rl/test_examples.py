from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.examples import Reader, Shuffled, completion, split, weighted
from tinker_ray.types import Datum


class Letters:
    """A token is a letter; the end is 0; a chat is written with the role's first letter."""

    eos_token_id: int | None = 0
    chat_template: str | None = "letters"

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        said = "".join(f"{m['role'][0]}:{m['content']};" for m in messages)
        return said + ("a:" if add_generation_prompt else "")


class Forgetful(Letters):
    """Rewrites all but the last message."""

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        last = super().apply_chat_template(
            messages[-1:], tokenize=tokenize, add_generation_prompt=add_generation_prompt
        )
        return f"{len(messages)}{last}"


def trained(datum: Datum) -> str:
    """Show what is trained on; what is not as dots."""
    targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
    weights = datum.loss_fn_inputs["weights"].to_numpy()
    return "".join(
        (chr(target) if target else "$") if weight else "."
        for target, weight in zip(targets, weights, strict=True)
    )


def read(line: dict[str, Any], tokenizer: Letters | None = None, max_length: int = 100) -> Datum:
    return Reader(tokenizer or Letters(), max_length).datum(line)


def test_only_the_completion_and_its_end_are_trained_on() -> None:
    datum = read({"prompt": "2+2=", "completion": "4"})
    assert "...4$" == trained(datum)
    assert [ord(letter) for letter in "2+2=4"] == datum.model_input.to_ints()


def test_each_answer_of_a_conversation_is_trained_on_with_its_end() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "so"},
        {"role": "assistant", "content": "ok"},
    ]
    assert "......yo;.......ok;" == trained(read({"messages": messages}))


def test_a_conversation_whose_template_rewrites_its_past_is_refused() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    with pytest.raises(ValueError, match="changes what stands before"):
        read({"messages": messages}, Forgetful())


def test_a_conversation_for_a_model_without_a_template_is_refused() -> None:
    tokenizer = Letters()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        read({"messages": [{"role": "assistant", "content": "yo"}]}, tokenizer)


def test_tokens_with_weights_are_taken_as_they_are() -> None:
    datum = read({"tokens": [1, 2, 3], "weights": [0, 0, 0.5]})
    assert [1, 2] == datum.model_input.to_ints()
    assert [0.0, 0.5] == datum.loss_fn_inputs["weights"].to_numpy().tolist()


@pytest.mark.parametrize(
    "tokens,weights", [([1, 2], [1.0]), ([1], [1.0]), ([1, 2], [1.0, 0.0]), ([], [])]
)
def test_an_example_without_anything_to_train_on_is_refused(
    tokens: list[int], weights: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"weights|nothing to train on"):
        weighted(tokens, weights)


@pytest.mark.parametrize(
    "line,problem",
    [
        ('{"prompt": "x"}', "'completion' is missing"),
        ("not json", "Expecting value"),
        ('{"prompt": "xxxxxxxx", "completion": "y"}', "10 tokens, and max_length is 6"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "examples.jsonl"
    good = json.dumps({"prompt": "a", "completion": "b"})
    path.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(ConfigurationError, match=rf"examples\.jsonl:3: .*{problem}"):
        Reader(Letters(), 6).datums(path)


def test_pairs_are_two_completions_of_a_text_or_of_a_dialogue(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    dialogue = [{"role": "user", "content": "q"}]
    lines = [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": dialogue, "chosen": "yes", "rejected": "no"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = Reader(Letters(), 50).pairs(path)
    assert [("yes$", "no$"), (".....yes;", ".....no;")] == [
        (trained(pair.chosen), trained(pair.rejected)) for pair in pairs
    ]


@given(
    count=st.integers(1, 12),
    batch_size=st.integers(1, 9),
    steps=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_every_round_shows_every_example_once(
    count: int, batch_size: int, steps: int, seed: int
) -> None:
    dataset = Shuffled(range(count), (), batch_size, seed)
    shown = [example for step in range(steps) for example in dataset.batch(step)]
    assert batch_size * steps == len(shown)
    for first in range(0, len(shown) - count + 1, count):
        assert Counter(range(count)) == Counter(shown[first : first + count])
    assert list(Shuffled(range(count), (), batch_size, seed).batch(steps)) == list(
        dataset.batch(steps)
    )


def test_what_is_held_out_is_never_trained_on() -> None:
    dataset = split(range(30), held_out_share=0.2, batch_size=6, seed=1)
    assert 6 == len(dataset.held_out())
    seen = {example for step in range(4) for example in dataset.batch(step)}
    assert set(range(30)) - set(dataset.held_out()) == seen


def test_a_dataset_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to train on"):
        split([], held_out_share=0.1, batch_size=1, seed=0)


def test_a_prompt_may_be_one_token() -> None:
    assert "b" == trained(completion([1], [ord("b")]))

"""Examples to learn from: tokens of which some are trained on, and pairs of them to choose between.

Knows tokenizers and JSON lines, neither services nor losses. Invariants: prompts are never trained
on; what is malformed or too long is refused with its line, not skipped and not cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import derive_seed
from tinker_ray.types import Datum, ModelInput, TensorData

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Message = Mapping[str, Any]


class ExampleDataset(Protocol[T_co]):
    """What a run learns from: datums for supervised fine-tuning, pairs for preferences."""

    def batch(self, step: int) -> Sequence[T_co]:
        """Return what is trained on at a step, counted from 0; the same for the same step."""
        ...

    def held_out(self) -> Sequence[T_co]:
        """Return what is evaluated on, always the same; may be nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of the same prompt.

    Attributes:
        chosen: The one to prefer.
        rejected: The other one.
    """

    chosen: Datum
    rejected: Datum


@dataclass(frozen=True)
class Shuffled(Generic[T]):
    """Goes through examples in a new order each time.

    Attributes:
        examples: All that are trained on, at least one.
        evaluated: Those that are not.
        batch_size: Examples per step; a batch may hold the end of one round and the beginning of
            the next.
        seed: Decides the orders.
    """

    examples: Sequence[T]
    evaluated: Sequence[T]
    batch_size: int
    seed: int = 0

    def batch(self, step: int) -> Sequence[T]:
        """Return the examples of a step."""
        first, count = step * self.batch_size, len(self.examples)
        orders = {n: self._order(n) for n in range(first // count, self._round(step) + 1)}
        places = range(first, first + self.batch_size)
        return [self.examples[orders[place // count][place % count]] for place in places]

    def held_out(self) -> Sequence[T]:
        """Return those that are not trained on."""
        return self.evaluated

    def _round(self, step: int) -> int:
        return ((step + 1) * self.batch_size - 1) // len(self.examples)

    def _order(self, number: int) -> list[int]:
        order = list(range(len(self.examples)))
        Random(derive_seed(self.seed, "order", number)).shuffle(order)  # noqa: S311 - no secrets
        return order


def split(
    examples: Sequence[T], *, held_out_share: float, batch_size: int, seed: int
) -> Shuffled[T]:
    """Keep a random share of the examples apart.

    Raises:
        ConfigurationError: There are none to train on.
    """
    order = list(range(len(examples)))
    Random(derive_seed(seed, "split")).shuffle(order)  # noqa: S311 - no secrets
    apart = round(held_out_share * len(order))
    if held_out_share > 0 and len(order) > 1:
        apart = max(1, apart)
    if len(order) <= apart:
        raise ConfigurationError(
            f"{len(order)} examples, {apart} of them held out: nothing to train on"
        )
    evaluated = [examples[i] for i in sorted(order[:apart])]
    return Shuffled([examples[i] for i in sorted(order[apart:])], evaluated, batch_size, seed)


def weighted(tokens: Sequence[int], weights: Sequence[float]) -> Datum:
    """Turn tokens into a datum that is trained on where its weight is not 0.

    Args:
        tokens: Of all of it, at least two.
        weights: One per token; the first one cannot count, as nothing stands before it.

    Raises:
        ValueError: Lengths differ, it is too short, or no weight counts.
    """
    if len(tokens) != len(weights):
        raise ValueError(f"{len(tokens)} tokens, but {len(weights)} weights")
    if len(tokens) < 2 or not any(weights[1:]):  # noqa: PLR2004 - a token and what follows it
        raise ValueError("nothing to train on: it needs a weight above 0 behind the first token")
    return Datum(
        model_input=ModelInput.from_ints(list(tokens[:-1])),
        loss_fn_inputs={
            "target_tokens": TensorData.from_numpy(np.asarray(tokens[1:], dtype=np.int64)),
            "weights": TensorData.from_numpy(np.asarray(weights[1:], dtype=np.float32)),
        },
    )


def completion(prompt: Sequence[int], answer: Sequence[int]) -> Datum:
    """Turn a prompt and its completion into a datum that is trained on the completion."""
    return weighted([*prompt, *answer], [0.0] * len(prompt) + [1.0] * len(answer))


@dataclass(frozen=True)
class Reader:
    """Reads examples from lines of JSON.

    A line is ``{"prompt", "completion"}`` in text, ``{"messages"}`` of a conversation, of which
    what the assistant says is trained on, or ``{"tokens", "weights"}``; for pairs it is
    ``{"prompt", "chosen", "rejected"}``, the prompt in text or as messages.

    Attributes:
        tokenizer: That of the model; its end of sequence is put behind completions in text.
        max_length: In tokens.
    """

    tokenizer: Any
    max_length: int

    def datums(self, path: Path) -> list[Datum]:
        """Read a file for supervised fine-tuning.

        Raises:
            ConfigurationError: It cannot be read, or a line is malformed or too long.
        """
        return list(_parsed(path, self.datum))

    def pairs(self, path: Path) -> list[Pair]:
        """Read a file of preferences.

        Raises:
            ConfigurationError: It cannot be read, or a line is malformed or too long.
        """
        return list(_parsed(path, self.pair))

    def datum(self, line: Mapping[str, Any]) -> Datum:
        """Read one example.

        Raises:
            ValueError: It is malformed or too long.
            KeyError: Something is missing.
        """
        if "messages" in line:
            return self._conversation(line["messages"])
        if "tokens" in line:
            return self._checked(weighted(line["tokens"], line["weights"]))
        return self._completed(line["prompt"], line["completion"])

    def pair(self, line: Mapping[str, Any]) -> Pair:
        """Read one pair.

        Raises:
            ValueError: It is malformed or too long.
            KeyError: Something is missing.
        """
        complete = partial(self._completed, line["prompt"])
        return Pair(chosen=complete(line["chosen"]), rejected=complete(line["rejected"]))

    def _completed(self, prompt: str | Sequence[Message], answer: str) -> Datum:
        if not isinstance(prompt, str):
            said = {"role": "assistant", "content": answer}
            return self._conversation([*prompt, said], only_last=True)
        end = [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else []
        tokens = self._encode(answer)
        return self._checked(
            completion(self._encode(prompt), tokens if tokens[-1:] == end else [*tokens, *end])
        )

    def _conversation(self, messages: Sequence[Message], *, only_last: bool = False) -> Datum:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        tokens, weights, shown = list[int](), list[float](), ""
        for i in answers[-1:] if only_last else answers:
            asked = self._render(messages[:i], asks=True)
            told = self._render(messages[: i + 1], asks=False)
            if not (asked.startswith(shown) and told.startswith(asked)):
                raise ValueError(
                    f"the chat template changes what stands before messages[{i}]: write this "
                    "conversation as prompt and completion, or as tokens and weights"
                )
            for text, weight in ((asked[len(shown) :], 0.0), (told[len(asked) :], 1.0)):
                piece = self._encode(text)
                tokens += piece
                weights += [weight] * len(piece)
            shown = told
        return self._checked(weighted(tokens, weights))

    def _render(self, messages: Sequence[Message], *, asks: bool) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                "this model has no chat template: write prompt and completion instead of messages"
            )
        text: str = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=asks
        )
        return text

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _checked(self, datum: Datum) -> Datum:
        length = datum.model_input.length + 1
        if length > self.max_length:
            raise ValueError(f"{length} tokens, and max_length is {self.max_length}")
        return datum


def _parsed(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse(json.loads(line))
        except KeyError as error:
            raise ConfigurationError(f"{path}:{number}: {error} is missing") from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}:{number}: {error}") from error

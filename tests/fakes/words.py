"""A tokenizer of characters with a chat template, and one whose template ends turns by a mark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

END = "\x03"
"""Ends a turn of the model."""


@dataclass(frozen=True)
class WordTokenizer:
    """One token per character: its code point.

    Attributes:
        eos_token_id: The end of sequence; by default that of a turn.
        chat_template: Empty for a model that was not made to chat.
        forgets: Whether the template shortens the model's earlier turns, as those of some
            reasoning models do.
    """

    eos_token_id: int = ord(END)
    chat_template: str = "user: …"
    forgets: bool = False

    def encode(self, text: str, /, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens, "the template has them"
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int], /) -> str:
        return "".join(map(chr, token_ids))

    def apply_chat_template(
        self,
        messages: Sequence[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        assert not tokenize
        text = "".join(f"[{tool['function']['name']}]" for tool in tools)
        for place, message in enumerate(messages):
            content = message["content"]
            if message["role"] == "assistant":
                is_early = self.forgets and place < len(messages) - 1
                text += f"[a]{'' if is_early else content}{END}\n"
            else:
                text += f"[{message['role'][0]}]{content}\n"
        return text + ("[a]" if add_generation_prompt else "")

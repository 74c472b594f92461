"""Words into tokens and back, by the chat template of a model's tokenizer.

Knows nothing of environments. Invariant: tokens that were sampled are never encoded again; what is
said next is appended to them, so that an episode stays one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tinker_ray.clients.tokenizer import load_tokenizer
from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import StopCondition

Message: TypeAlias = Mapping[str, Any]
"""What somebody says, as chat templates take it: ``role``, ``content``, and what a role needs."""

_MARK = "0"
"""Stands for an answer where the template is asked what it puts around one."""
_ANSWER: dict[str, Any] = {"role": "assistant", "content": _MARK}


class Tokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def encode(self, text: str, /, *, add_special_tokens: bool = ...) -> list[int]:
        """Turn text into token ids."""
        ...

    def decode(self, token_ids: Sequence[int], /) -> str:
        """Turn token ids into text."""
        ...


class Dialogue:
    """A conversation between an environment, which has the user's part, and a model.

    It pickles: a tokenizer from a hub by its name, so that large ones do not travel with every
    group; any other one as it is.

    Args:
        tokenizer: That of the model, with a chat template that ends the model's turns.
        system: What the system says first; None leaves that part out.

    Attributes:
        stop: Ends the model's turn; None if the model's end of sequence does.

    Raises:
        ConfigurationError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Tokenizer, system: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._system = system
        asked, answered = self._render([_user("")]), self._render([_user(""), _ANSWER])
        self._asked_characters = len(asked)
        self._end_text = answered[answered.rindex(_MARK) + len(_MARK) :]
        self._end = self._encode(self._end_text)
        ends_by_itself = self._end[:1] == [getattr(tokenizer, "eos_token_id", None)]
        self.stop: StopCondition = None if ends_by_itself or not self._end else self._end[:1]

    def __reduce__(self) -> tuple[Callable[..., Dialogue], tuple[object, ...]]:
        """Travel with the tokenizer's name, if that is enough."""
        name = getattr(self._tokenizer, "name_or_path", "")
        if isinstance(name, str) and name and not Path(name).exists():
            return _named, (name, self._system)
        return Dialogue, (self._tokenizer, self._system)

    def opening(self, text: str) -> list[int]:
        """Begin: what the environment says first, up to where the model answers."""
        return self.conversation([_user(text)])

    def conversation(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Begin with a whole conversation, up to where the model answers.

        Args:
            messages: As chat templates take them, with ``role`` and ``content``.
            tools: What the model may call, as chat templates take it.
        """
        return self._encode(self._render(messages, tools=tools, asks=True))

    def reply(self, action: Sequence[int], text: str) -> list[int]:
        """Go on: what follows the model's tokens, up to where it answers again.

        Args:
            action: The model's turn; its end is added if it was cut off.
            text: What the environment says next.
        """
        return self.continuation(action, [_user(text)])

    def continuation(self, action: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """Go on with several messages, such as the results of tools.

        Args:
            action: The model's turn; its end is added if it was cut off.
            messages: What is said next, none of it by the model.
        """
        end = self._end[1:] if self._ends(action) else self._end
        return [*end, *self._encode(self._said(messages))]

    def read(self, action: Sequence[int]) -> str:
        """Return the words of the model's turn, without its end."""
        return self._tokenizer.decode(action[:-1] if self._ends(action) else action)

    def _ends(self, action: Sequence[int]) -> bool:
        return bool(self._end) and list(action[-1:]) == self._end[:1]

    def _said(self, messages: Sequence[Message]) -> str:
        """Render what comes between the end of an answer and the next one.

        Templates may shorten earlier answers, and do not say where one ends: it ends with what
        they put behind the last one, the first time that this follows the first message.
        """
        rendered = self._render([_user(""), _ANSWER, *messages], asks=True)
        place = rendered.find(self._end_text, self._asked_characters) if self._end_text else -1
        if place < 0:
            message = "the chat template does not end an answer in the middle as it does at the end"
            raise ConfigurationError(message)
        return rendered[place + len(self._end_text) :]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _render(
        self, messages: Sequence[Message], *, tools: Sequence[Any] = (), asks: bool = False
    ) -> str:
        if self._system is not None:
            messages = [{"role": "system", "content": self._system}, *messages]
        template: Any = getattr(self._tokenizer, "apply_chat_template", None)
        if template is None or not getattr(self._tokenizer, "chat_template", None):
            message = (
                f"{self._tokenizer!r} has no chat template: give a model that was made to chat"
            )
            raise ConfigurationError(message)
        more = {"tools": list(tools)} if tools else {}
        text: str = template(list(messages), tokenize=False, add_generation_prompt=asks, **more)
        return text


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _named(name: str, system: str | None) -> Dialogue:
    return Dialogue(load_tokenizer(name), system)

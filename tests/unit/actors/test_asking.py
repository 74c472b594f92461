"""Questions that block."""

from __future__ import annotations

import threading

import pytest

from actors.asking import ask


async def test_the_answer_is_given_even_if_it_is_none() -> None:
    assert 7 == await ask(lambda: 7, 20.0)
    nothing: dict[str, int] = {}
    assert await ask(lambda: nothing.get("x"), 20.0) is None


async def test_what_the_question_raises_is_raised() -> None:
    def question() -> None:
        raise OSError("the head is gone")

    with pytest.raises(OSError, match="the head is gone"):
        await ask(question, 20.0)


async def test_a_question_that_is_not_answered_is_waited_for_no_longer_than_was_said() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        await ask(never.wait, 0.01)
    never.set()

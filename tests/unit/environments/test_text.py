from __future__ import annotations

import asyncio
import pickle
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.sampler import ScriptedSampler
from tests.fakes.words import END, WordTokenizer
from tinker_ray.environments import Dialogue, TextGroup, Turn
from tinker_ray.errors import ConfigurationError
from tinker_ray.rl import LocalWorker
from tinker_ray.rollouts import Attempt, AttemptId, RolloutParams, TrajectoryGroup
from tinker_ray.rollouts.datum import from_trajectory

ATTEMPT = Attempt(AttemptId(0, 0), RolloutParams(max_tokens=8))


@dataclass
class Echo:
    """Repeats what it hears, three times."""

    heard: list[str] = field(default_factory=list)

    async def begin(self) -> str:
        return "go"

    async def respond(self, answer: str) -> Turn:
        self.heard.append(answer)
        done = len(self.heard) == 3
        return Turn(f"you said {answer}", reward=1.0, done=done, metrics={"turn": len(self.heard)})


class BlockingEcho:
    """The same in plain functions, which note where they ran."""

    threads: list[str]
    released: list[str]

    def __init__(self, released: list[str]) -> None:
        self.threads = []
        self.released = released

    def begin(self) -> str:
        return "go"

    def respond(self, answer: str) -> Turn:
        self.threads.append(threading.current_thread().name)
        done = len(self.threads) == 3
        return Turn(f"you said {answer}", reward=1.0, done=done)

    def cleanup(self) -> None:
        self.released += self.threads


def run(group: TextGroup, answers: tuple[str, ...] = ("a", "b", "c")) -> TrajectoryGroup:
    """Play a group whose episodes all give these answers."""

    def answer(prompt: list[int], row: int) -> list[int]:
        turn = "".join(map(chr, prompt)).count("[a]") - 1
        return [ord(character) for character in f"{answers[turn]}{END}"]

    async def play() -> TrajectoryGroup:
        worker = LocalWorker()
        try:
            return await worker.run_group(group, ScriptedSampler(answer), ATTEMPT)
        finally:
            await worker.close()

    return asyncio.run(play())


def text(tokens: list[int]) -> str:
    return "".join(map(chr, tokens))


def test_an_episode_is_one_conversation_that_grows() -> None:
    group = TextGroup(Echo, 2, Dialogue(WordTokenizer(), "be brief"), tags=("echo",))
    played = run(pickle.loads(pickle.dumps(group)))  # noqa: S301 - our own
    first = played.trajectories_G[0]
    assert [
        "[s]be brief\n[u]go\n[a]",
        f"[s]be brief\n[u]go\n[a]a{END}\n[u]you said a\n[a]",
        f"[s]be brief\n[u]go\n[a]a{END}\n[u]you said a\n[a]b{END}\n[u]you said b\n[a]",
    ] == [text(turn.ob.to_ints()) for turn in first.transitions]
    assert [3.0, 3.0] == played.get_total_rewards()
    assert [{"turn": 1}, {"turn": 2}, {"turn": 3}] == [t.metrics for t in first.transitions]
    assert 1 == len(from_trajectory(first, 1.0))
    assert ["echo"] == group.logging_tags()


def test_without_memory_each_turn_is_a_conversation_of_its_own() -> None:
    group = TextGroup(Echo, 1, Dialogue(WordTokenizer()), memory=False)
    first = run(group, ("a",)).trajectories_G[0]
    assert ["[u]go\n[a]", "[u]you said a\n[a]", "[u]you said a\n[a]"] == [
        text(turn.ob.to_ints()) for turn in first.transitions
    ]
    assert 3 == len(from_trajectory(first, 1.0))


def test_an_environment_that_blocks_runs_in_threads_and_is_cleaned_up() -> None:
    released: list[str] = []
    group = TextGroup(partial(BlockingEcho, released), 2, Dialogue(WordTokenizer()))
    assert [3.0, 3.0] == run(group).get_total_rewards()
    assert 6 == len(released)
    assert "MainThread" not in released


def test_an_answer_that_was_cut_off_is_ended_by_the_template() -> None:
    dialogue = Dialogue(WordTokenizer())
    complete = [*map(ord, "yes"), ord(END)]
    assert ("yes", "\n[u]go on\n[a]") == (
        dialogue.read(complete),
        text(dialogue.reply(complete, "go on")),
    )
    assert ("ye", f"{END}\n[u]go on\n[a]") == (
        dialogue.read(complete[:2]),
        text(dialogue.reply(complete[:2], "go on")),
    )


@pytest.mark.parametrize("eos,stop", [(ord(END), None), (0, [ord(END)])])
def test_a_turn_stops_where_the_template_ends_it(eos: int, stop: list[int] | None) -> None:
    assert stop == Dialogue(WordTokenizer(eos_token_id=eos)).stop


def test_a_template_that_rewrites_earlier_turns_is_no_hindrance() -> None:
    dialogue = Dialogue(WordTokenizer(forgets=True))
    assert f"{END}\n[u]go on\n[a]" == text(dialogue.reply([ord("y")], "go on"))


def test_a_tokenizer_without_a_chat_template_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"WordTokenizer.* has no chat template"):
        Dialogue(WordTokenizer(chat_template=""))


@dataclass(frozen=True)
class HubTokenizer(WordTokenizer):
    """One that was loaded by its name."""

    name_or_path: str = "some/model"


def test_a_tokenizer_from_a_hub_travels_by_its_name_and_others_as_they_are(tmp_path: Path) -> None:
    arguments = [
        Dialogue(HubTokenizer(name_or_path=name), "be brief").__reduce__()[1]
        for name in ("some/model", str(tmp_path), "")
    ]
    assert [
        ("some/model", "be brief"),
        (HubTokenizer(name_or_path=str(tmp_path)), "be brief"),
        (HubTokenizer(name_or_path=""), "be brief"),
    ] == arguments

from __future__ import annotations

import importlib.util
import string
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tinker_ray.environments.gym import GymText, UnreadableActionError, as_number, as_words
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARACTERS = f"{string.ascii_lowercase}{string.digits} "
NAME = "tinker-ray-tests/Countdown-v0"


class Countdown:
    """Follows Gymnasium's protocol without Gymnasium: subtract until nothing is left."""

    def __init__(self, start: int, log: list[str] | None = None) -> None:
        self.left = start
        self.log = [] if log is None else log

    def reset(self, *, seed: int | None = None) -> tuple[int, dict[str, Any]]:
        self.log.append(f"reset {seed}")
        return self.left, {}

    def step(self, action: int) -> tuple[int, int, bool, bool, dict[str, Any]]:
        self.left -= action
        info = {"left": self.left, "name": "countdown", "even": self.left % 2 == 0}
        return self.left, action, self.left == 0, self.left < 0, info

    def close(self) -> None:
        self.log.append("close")


def test_words_become_actions_and_observations_become_words() -> None:
    log: list[str] = []
    env = GymText(partial(Countdown, 5, log), seed=3, read=as_number, show="left: {}".format)
    assert "left: 5" == env.begin()
    turns = [env.respond(" 2 "), env.respond("3")]
    env.cleanup()
    assert [("left: 3", 2.0, False), ("left: 0", 3.0, True)] == [
        (turn.text, turn.reward, turn.done) for turn in turns
    ]
    assert {"unreadable": 0.0, "truncated": 0.0, "info/left": 3} == turns[0].metrics
    assert ["reset 3", "close"] == log


def test_what_is_no_action_is_told_so_and_ends_the_episode_when_it_is_too_much() -> None:
    env = GymText(partial(Countdown, 5), read=as_number, unreadable_reward=-0.5, max_unreadable=2)
    env.begin()
    turns = [env.respond("two"), env.respond("1"), env.respond("three")]
    assert ["'two' is no whole number", "4", "'three' is no whole number"] == [
        turn.text for turn in turns
    ]
    assert [(-0.5, False), (1.0, False), (-0.5, True)] == [(t.reward, t.done) for t in turns]


def test_an_episode_that_is_cut_off_is_over() -> None:
    env = GymText(partial(Countdown, 1), read=as_number)
    env.begin()
    turn = env.respond("2")
    assert (True, 1.0) == (turn.done, turn.metrics["truncated"])


def test_an_environment_that_was_never_made_needs_no_closing() -> None:
    GymText(partial(Countdown, 1)).cleanup()


def test_actions_are_read_as_words_or_numbers() -> None:
    assert "go north" == as_words(" go north\n")
    with pytest.raises(UnreadableActionError, match="no whole number"):
        as_number("1.5")


@pytest.fixture
def registered() -> Iterator[str]:
    """Register an environment of words with the real Gymnasium."""
    gymnasium = pytest.importorskip("gymnasium")

    class Words(gymnasium.Env[Any, Any]):  # type: ignore[misc,name-defined,unused-ignore]
        observation_space = gymnasium.spaces.Text(100, charset=CHARACTERS)
        action_space = gymnasium.spaces.Text(100, charset=CHARACTERS)

        def __init__(self, goal: str = "open") -> None:
            self.goal = goal

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed, options=options)
            return f"door {self.np_random.integers(100)}", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            is_right = action == self.goal
            return "it opens" if is_right else "nothing", float(is_right), is_right, False, {}

    gymnasium.register(NAME, entry_point=Words, max_episode_steps=2)
    yield NAME
    gymnasium.registry.pop(NAME)


@pytest.mark.skipif(importlib.util.find_spec("gymnasium") is None, reason="needs the extra gym")
def test_a_registered_environment_plays_with_its_seed_its_options_and_its_limit(
    registered: str,
) -> None:
    first, again = (GymText(registered, seed=7, options={"goal": "pull"}) for _ in range(2))
    assert first.begin() == again.begin()
    assert [(0.0, False), (1.0, True)] == [
        (turn.reward, turn.done) for turn in (first.respond("open"), first.respond("pull"))
    ]
    again.respond("open")
    assert (True, 1.0) == ((last := again.respond("open")).done, last.metrics["truncated"])
    first.cleanup()
    again.cleanup()


def test_without_gymnasium_a_name_is_refused_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ConfigurationError, match=r"tinker-ray\[gym\]"):
        GymText("Any-v0").begin()

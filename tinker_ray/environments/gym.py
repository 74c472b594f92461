"""Gymnasium environments whose observations and actions are words.

Knows nothing of tokens, and of Gymnasium only its protocol: ``reset`` and ``step``, whose five
results are observation, reward, terminated, truncated and info. Invariant: an environment is made,
stepped and closed in one episode; what blocks there runs in the worker's threads.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

from tinker_ray.environments.text import Turn
from tinker_ray.errors import ConfigurationError

ReadAction = Callable[[str], Any]
ShowObservation = Callable[[Any], str]


class UnreadableActionError(ValueError):
    """What a function that reads actions may raise: the words are no action; says why."""


def as_words(answer: str) -> str:
    """Read an action that is words."""
    return answer.strip()


def as_number(answer: str) -> int:
    """Read an action that is a whole number, as of ``Discrete`` spaces.

    Raises:
        UnreadableActionError: It is none.
    """
    try:
        return int(answer.strip())
    except ValueError as error:
        raise UnreadableActionError(f"{answer.strip()[:40]!r} is no whole number") from error


@dataclass
class GymText:
    """A Gymnasium environment as a :class:`~tinker_ray.environments.TextEnv`.

    Attributes:
        make: The name of a registered environment, with its module in front if it has to be
            imported (``my_package:Game-v0``), or a function that makes one. It pickles.
        seed: Of ``reset``: the episodes of a group begin alike.
        options: Of ``gymnasium.make``, if ``make`` is a name.
        read: Turns the model's words into an action.
        show: Turns an observation into words.
        unreadable_reward: What words earn that are no action; the environment does not see them.
        max_unreadable: How many of those end the episode.
    """

    make: str | Callable[[], Any]
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    read: ReadAction = as_words
    show: ShowObservation = str
    unreadable_reward: float = 0.0
    max_unreadable: int = 3
    _env: Any = None
    _unreadable: int = 0

    def begin(self) -> str:
        """Make the environment and show its first observation."""
        self._env = self.make() if callable(self.make) else self._registered(self.make)
        observation, _ = self._env.reset(seed=self.seed)
        return self.show(observation)

    def respond(self, answer: str) -> Turn:
        """Take an action."""
        try:
            action = self.read(answer)
        except UnreadableActionError as error:
            self._unreadable += 1
            done = self._unreadable >= self.max_unreadable
            metrics = {"unreadable": 1.0}
            return Turn(str(error), reward=self.unreadable_reward, done=done, metrics=metrics)
        observation, reward, terminated, truncated, info = self._env.step(action)
        return Turn(
            self.show(observation),
            reward=_number(reward),
            done=bool(terminated or truncated),
            metrics={"unreadable": 0.0, "truncated": float(bool(truncated)), **_numbers(info)},
        )

    def cleanup(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()

    def _registered(self, name: str) -> Any:  # noqa: ANN401 - Gymnasium's
        try:
            gymnasium = importlib.import_module("gymnasium")
        except ImportError as error:
            message = f"the environment {name!r} needs gymnasium: pip install 'tinker-ray[gym]'"
            raise ConfigurationError(message) from error
        return gymnasium.make(name, **self.options)


def _number(value: SupportsFloat) -> float:
    return float(value)


def _numbers(info: dict[str, Any]) -> dict[str, float | int]:
    """Keep what can be averaged."""
    return {
        f"info/{key}": value
        for key, value in info.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }

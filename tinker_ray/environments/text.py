"""Environments in words: what is said, what is answered, and the tokens in between.

A :class:`TextEnv` reads and writes words only; :class:`TextGroup` lets a group of them play by
tokens. Knows nothing of tools or games. Invariant: an episode's tokens are one sequence that grows,
unless the environment wants no memory, which makes a sequence of each turn.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from tinker_ray.environments.dialogue import Dialogue
from tinker_ray.rollouts import (
    Action,
    Env,
    EnvGroupBuilder,
    Logs,
    Metrics,
    Observation,
    StepResult,
    StopCondition,
)
from tinker_ray.types import ModelInput


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment makes of an answer.

    Attributes:
        text: What it says next; at the end, to nobody.
        reward: Of this turn.
        done: Whether the episode ends here.
        metrics: Numbers to average over the run.
        logs: Words for people.
    """

    text: str
    reward: float = 0.0
    done: bool = False
    metrics: Metrics = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)


class TextEnv(Protocol):
    """An environment that reads and writes words, for one episode.

    Its methods are coroutines or, if they block, plain functions, which run in threads. If there is
    a method ``cleanup``, it is called after the group, whatever became of it.
    """

    def begin(self) -> str | Awaitable[str]:
        """Say what there is to do."""
        ...

    def respond(self, answer: str, /) -> Turn | Awaitable[Turn]:
        """Take in an answer, and say what comes of it."""
        ...


class Transcript:
    """The tokens of an episode so far.

    Args:
        dialogue: Makes tokens of words.
        memory: Whether the model sees earlier turns; without, each turn is a conversation of its
            own, so that an environment should say all that matters.
    """

    def __init__(self, dialogue: Dialogue, *, memory: bool = True) -> None:
        self._dialogue = dialogue
        self._memory = memory
        self._tokens: list[int] = []

    def opening(self, text: str) -> tuple[Observation, StopCondition]:
        """Begin with what the environment says first."""
        self._tokens = self._dialogue.opening(text)
        return self._shown(), self._dialogue.stop

    def answer(self, action: Action) -> str:
        """Return the words of an action."""
        return self._dialogue.read(action)

    def step(self, action: Action, turn: Turn) -> StepResult:
        """Go on with an action and what the environment said to it."""
        if not self._memory:
            self._tokens = self._dialogue.opening(turn.text)
        elif turn.done:
            self._tokens += action
        else:
            self._tokens += [*action, *self._dialogue.reply(action, turn.text)]
        return StepResult(
            reward=turn.reward,
            episode_done=turn.done,
            next_observation=self._shown(),
            next_stop_condition=self._dialogue.stop,
            metrics=turn.metrics,
            logs=turn.logs,
        )

    def _shown(self) -> Observation:
        return ModelInput.from_ints(list(self._tokens))


class TextEpisode(Env):
    """Plays a :class:`TextEnv` of coroutines by tokens."""

    def __init__(self, env: TextEnv, transcript: Transcript) -> None:
        self._env: Any = env
        self._transcript = transcript

    def __repr__(self) -> str:
        """Show the environment."""
        return f"TextEpisode({self._env!r})"

    async def initial_observation(self) -> tuple[Observation, StopCondition]:
        """Say what there is to do."""
        return self._transcript.opening(await self._env.begin())

    async def step(self, action: Action) -> StepResult:
        """Let the environment read the answer and go on."""
        turn = await self._env.respond(self._transcript.answer(action))
        return self._transcript.step(action, turn)

    async def cleanup(self) -> None:
        """Let the environment release what it holds."""
        cleanup = getattr(self._env, "cleanup", None)
        if cleanup is not None:
            await cleanup()


class BlockingTextEpisode:
    """Plays a :class:`TextEnv` of plain functions by tokens; workers call it in threads."""

    def __init__(self, env: TextEnv, transcript: Transcript) -> None:
        self._env: Any = env
        self._transcript = transcript

    def __repr__(self) -> str:
        """Show the environment."""
        return f"BlockingTextEpisode({self._env!r})"

    def initial_observation(self) -> tuple[Observation, StopCondition]:
        """Say what there is to do."""
        return self._transcript.opening(self._env.begin())

    def step(self, action: Action) -> StepResult:
        """Let the environment read the answer and go on."""
        turn = self._env.respond(self._transcript.answer(action))
        return self._transcript.step(action, turn)

    def cleanup(self) -> None:
        """Let the environment release what it holds."""
        cleanup = getattr(self._env, "cleanup", None)
        if cleanup is not None:
            cleanup()


def episode_of(env: TextEnv, dialogue: Dialogue, *, memory: bool = True) -> Env:
    """Let an environment in words be played by tokens."""
    transcript = Transcript(dialogue, memory=memory)
    if inspect.iscoroutinefunction(env.respond):
        return TextEpisode(env, transcript)
    return cast("Env", BlockingTextEpisode(env, transcript))


@dataclass(frozen=True)
class TextGroup(EnvGroupBuilder):
    """The same task to ``size`` episodes.

    Attributes:
        make: Makes a fresh environment; it travels to the worker, so it pickles: a class, a
            ``functools.partial`` of one, a function of a module.
        size: Episodes of the group.
        dialogue: Makes tokens of words.
        memory: Whether the model sees earlier turns.
        tags: Names under which the group's metrics are gathered.
    """

    make: Callable[[], TextEnv]
    size: int
    dialogue: Dialogue
    memory: bool = True
    tags: tuple[str, ...] = ()

    async def make_envs(self) -> Sequence[Env]:
        """Make one environment per episode."""
        return [
            episode_of(self.make(), self.dialogue, memory=self.memory) for _ in range(self.size)
        ]

    def logging_tags(self) -> list[str]:
        """Return the tags."""
        return list(self.tags)

"""The environment of the rollout benchmark: some turns, each with work of its own.

Imports neither SDK, so that every contender runs the very same code. Each turn's latency, from the
prompt to the end of the step that answers its action, is measured by the environment itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

PROMPT_TOKENS = 64


@dataclass(frozen=True)
class Work:
    """What a step does beside bookkeeping.

    Attributes:
        turns: Of an episode.
        cpu_s: Computing, in CPU time of its thread.
        blocked_s: Waiting without giving way, as for a subprocess.
    """

    turns: int = 3
    cpu_s: float = 0.0
    blocked_s: float = 0.0

    def do(self) -> None:
        """Do it."""
        if self.blocked_s:
            time.sleep(self.blocked_s)
        end = time.thread_time() + self.cpu_s
        while time.thread_time() < end:
            pass


@dataclass
class Step:
    """The cookbook's StepResult, by its shape."""

    reward: float
    episode_done: bool
    next_observation: Any
    next_stop_condition: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)


class Turns:
    """An episode: the prompt grows by the action and a mark of the environment.

    Args:
        number: Begins the prompt, so that no two environments share a request.
        work: Of each step.
        make: Makes a prompt of tokens.
    """

    def __init__(self, number: int, work: Work, make: Any) -> None:  # noqa: ANN401
        self._tokens = [number, *range(1, PROMPT_TOKENS)]
        self._work = work
        self._make = make
        self._turn = 0
        self._asked_at = 0.0

    def begin(self) -> tuple[Any, None]:
        """Give the first prompt."""
        self._asked_at = time.perf_counter()
        return self._make(list(self._tokens)), None

    def answer(self, action: Any) -> Step:  # noqa: ANN401
        """Do the work of a step and give the next prompt."""
        self._work.do()
        self._turn += 1
        self._tokens += [*action, self._turn]
        now = time.perf_counter()
        latency_s, self._asked_at = now - self._asked_at, now
        done = self._turn == self._work.turns
        prompt = self._make(list(self._tokens))
        return Step(1.0, done, prompt, metrics={"turn_s": latency_s})


class AsyncEnv(Turns):
    """The environment with coroutines, as the protocol has them."""

    async def initial_observation(self) -> tuple[Any, None]:
        """Give the first prompt."""
        return self.begin()

    async def step(self, action: Any) -> Step:  # noqa: ANN401
        """Answer an action."""
        return self.answer(action)


class PlainEnv(Turns):
    """The same with plain methods, which may block."""

    def initial_observation(self) -> tuple[Any, None]:
        """Give the first prompt."""
        return self.begin()

    def step(self, action: Any) -> Step:  # noqa: ANN401
        """Answer an action."""
        return self.answer(action)

"""Agents that bring their own loop: they ask an address for completions, and play an episode.

Turns the loop around: what an agent asks becomes an observation, the action becomes its answer, and
its verdict the last reward. Knows nothing of any library of agents. Invariant: an agent ends with
its episode; one that fails fails the episode.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinker_ray.environments.dialogue import Dialogue
from tinker_ray.environments.endpoint import ChatRequest, Completion, Endpoint
from tinker_ray.rollouts import (
    Action,
    ActionExtra,
    Env,
    EnvGroupBuilder,
    Logs,
    Metrics,
    Observation,
    StepResult,
    StopCondition,
)
from tinker_ray.types import ModelInput

_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an agent's episode was worth.

    Attributes:
        reward: Of the whole.
        metrics: Numbers to average over the run.
        logs: Words for people.
    """

    reward: float
    metrics: Metrics = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)


class Agent(Protocol):
    """Plays one episode against an OpenAI-compatible address."""

    async def __call__(self, base_url: str, /) -> Verdict:
        """Play to the end; requests go to ``{base_url}/chat/completions``, without a key."""
        ...


def read_calls(text: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Split an answer into words and calls of tools, written as ``<tool_call>{…}</tool_call>``.

    What is no JSON with a ``name`` stays among the words. Source: the chat templates of Hermes and
    Qwen, https://github.com/NousResearch/Hermes-Function-Calling.
    """
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        try:
            call = json.loads(match.group(1))
            name, arguments = str(call["name"]), call.get("arguments", {})
        except (ValueError, KeyError, TypeError):
            return match.group(0)
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        function = {"name": name, "arguments": text}
        calls.append({"id": f"call_{len(calls)}", "type": "function", "function": function})
        return ""

    return _CALL.sub(take, text).strip(), tuple(calls)


class AgentEpisode(Env):
    """One episode of an agent.

    Args:
        agent: Plays it.
        dialogue: Makes tokens of messages.
    """

    def __init__(self, agent: Agent, dialogue: Dialogue) -> None:
        self._agent = agent
        self._dialogue = dialogue
        self._endpoint = Endpoint()
        self._playing: asyncio.Task[Verdict] | None = None
        self._asked: ChatRequest | None = None
        self._tokens: list[int] = []

    def __repr__(self) -> str:
        """Show the agent."""
        return f"AgentEpisode({self._agent!r})"

    async def initial_observation(self) -> tuple[Observation, StopCondition]:
        """Let the agent begin, up to its first request."""
        await self._endpoint.start()
        self._playing = asyncio.create_task(self._play())
        request = await self._next_request(self._playing)
        if request is None:
            verdict = self._playing.result()
            raise AgentNeverAskedError(f"the agent ended without a request, with {verdict}")
        return self._show(request, self._dialogue.conversation(request.messages, request.tools))

    async def step(self, action: Action, *, extra: ActionExtra | None = None) -> StepResult:
        """Answer the agent's request, and let it go on to the next one or to its end."""
        if self._asked is None or self._playing is None:
            raise RuntimeError("the agent has not asked")
        words, calls = read_calls(self._dialogue.read(action))
        was_cut = (extra or {}).get("stop_reason") == "length"
        reason = "length" if was_cut else "tool_calls" if calls else "stop"
        num_tokens = len(self._tokens), len(action)
        asked = self._asked
        if not asked.answer.done():
            asked.answer.set_result(Completion(words, reason, calls, *num_tokens))
        request = await self._next_request(self._playing)
        if request is None:
            return self._ended(self._playing.result(), action)
        said = [*asked.messages, {"role": "assistant", "content": words}]
        observation, stop = self._show(request, self._observed(request, said, action))
        return StepResult(0.0, False, observation, stop)  # noqa: FBT003 - the protocol's order

    async def cleanup(self) -> None:
        """End the agent and its address."""
        if self._playing is not None:
            self._playing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._playing
        await self._endpoint.aclose()

    async def _play(self) -> Verdict:
        return await self._agent(self._endpoint.url)

    async def _next_request(self, playing: asyncio.Task[Verdict]) -> ChatRequest | None:
        """Wait for a request; None if the agent ended instead, and its error if it failed."""
        asking = asyncio.ensure_future(self._endpoint.requests.get())
        try:
            await asyncio.wait({asking, playing}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            playing.result()
            return None
        finally:
            asking.cancel()

    def _observed(
        self, request: ChatRequest, said: Sequence[dict[str, Any]], action: Action
    ) -> list[int]:
        """Append to the tokens if the request goes on with what was said; else begin anew."""
        count = len(said)
        news = request.messages[count:]
        goes_on = _alike(request.messages[:count], said) and news
        if goes_on and all(message.get("role") != "assistant" for message in news):
            return [*self._tokens, *action, *self._dialogue.continuation(action, news)]
        return self._dialogue.conversation(request.messages, request.tools)

    def _show(self, request: ChatRequest, tokens: list[int]) -> tuple[Observation, StopCondition]:
        self._asked, self._tokens = request, tokens
        return ModelInput.from_ints(list(tokens)), self._dialogue.stop

    def _ended(self, verdict: Verdict, action: Action) -> StepResult:
        return StepResult(
            reward=verdict.reward,
            episode_done=True,
            next_observation=ModelInput.from_ints([*self._tokens, *action]),
            next_stop_condition=self._dialogue.stop,
            metrics=verdict.metrics,
            logs=verdict.logs,
        )


class AgentNeverAskedError(Exception):
    """An agent came to its end without a request, so that there is nothing to learn from."""


def _alike(messages: Sequence[dict[str, Any]], said: Sequence[dict[str, Any]]) -> bool:
    """Tell whether messages are what was said, as far as words go."""
    return len(messages) == len(said) and all(
        one.get("role") == other.get("role") and _words(one) == _words(other)
        for one, other in zip(messages, said, strict=True)
    )


def _words(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return str(content).strip()


@dataclass(frozen=True)
class AgentGroup(EnvGroupBuilder):
    """The same task to ``size`` agents.

    Attributes:
        make: Makes an agent for one episode; it travels to the worker, so it pickles.
        size: Episodes of the group.
        dialogue: Makes tokens of messages.
        tags: Names under which the group's metrics are gathered.
    """

    make: Callable[[], Agent]
    size: int
    dialogue: Dialogue
    tags: tuple[str, ...] = ()

    async def make_envs(self) -> Sequence[Env]:
        """Make one agent per episode."""
        return [AgentEpisode(self.make(), self.dialogue) for _ in range(self.size)]

    def logging_tags(self) -> list[str]:
        """Return the tags."""
        return list(self.tags)

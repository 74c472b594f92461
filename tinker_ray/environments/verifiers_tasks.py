"""Environments of the library ``verifiers``: its tasksets, harnesses and scores.

An episode of theirs runs as they run it, harness and all, with an address of ours for its model.
Needs ``pip install 'tinker-ray[verifiers]'``; knows of the library ``load_environment``,
``serving``, ``run_episode`` and what an episode holds. Invariant: their environment is loaded once
per process, and serves for as long as a group of it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tinker_ray.environments.agent import AgentEpisode, Verdict
from tinker_ray.environments.dialogue import Dialogue
from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import Env, EnvGroupBuilder

NO_KEY_VARIABLE = "TINKER_RAY_NO_KEY"
"""Names no variable: the address needs no key, and gets none."""


class EpisodeFailedError(Exception):
    """An episode that did not come to a score; the words are theirs."""


def library() -> Any:  # noqa: ANN401 - theirs
    """Import ``verifiers.v1``.

    Raises:
        ConfigurationError: It is not installed, or too old.
    """
    try:
        return importlib.import_module("verifiers.v1")
    except ImportError as error:
        message = (
            f"environments of verifiers need verifiers>=0.4 ({error}): "
            "pip install 'tinker-ray[verifiers]'"
        )
        raise ConfigurationError(message) from error


class _Served:
    """An environment of theirs in this process, and who uses it.

    A task of its own holds it open: what they enter wants to be left by the task that entered.
    """

    def __init__(self, env: Any) -> None:  # noqa: ANN401 - theirs
        self._env = env
        self._users = 0
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[None] | None = None
        self._unused = asyncio.Event()

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[Any]:
        """Let it serve, from the first user to the last."""
        async with self._lock:
            if self._holder is None:
                await self._begin()
            self._users += 1
        try:
            yield self._env
        finally:
            async with self._lock:
                self._users -= 1
                if self._users == 0 and self._holder is not None:
                    holder, self._holder = self._holder, None
                    self._unused.set()
                    await holder

    async def _begin(self) -> None:
        self._unused.clear()
        serves = asyncio.Event()
        holder = asyncio.create_task(self._hold(serves))
        waiting = asyncio.create_task(serves.wait())
        try:
            await asyncio.wait({holder, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            holder.cancel()
            raise
        finally:
            waiting.cancel()
        if holder.done():
            holder.result()  # why it does not serve
        self._holder = holder

    async def _hold(self, serves: asyncio.Event) -> None:
        async with self._env.serving():
            serves.set()
            await self._unused.wait()


_SERVED: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Served]] = WeakKeyDictionary()


def _served(config: Any) -> _Served:  # noqa: ANN401 - theirs
    """Find the environment of a config on this event loop; its parts belong to one."""
    here = _SERVED.setdefault(asyncio.get_running_loop(), {})
    key = config.model_dump_json()
    if key not in here:
        here[key] = _Served(library().load_environment(config))
    return here[key]


class TaskAgent:
    """Plays one task as their environment does.

    Args:
        config: Of their environment, an ``EnvConfig``.
        task: A task of its taskset.
    """

    def __init__(self, config: Any, task: Any) -> None:  # noqa: ANN401 - theirs
        self._config = config
        self._task = task

    def __repr__(self) -> str:
        """Show which task it is."""
        return f"TaskAgent({self._config.env_id!r}, {self._task.data.idx})"

    async def __call__(self, base_url: str, /) -> Verdict:
        """Play and score.

        Raises:
            EpisodeFailedError: The episode did not come to a score.
        """
        vf = library()
        client = vf.EvalClientConfig(base_url=base_url, api_key_var=NO_KEY_VARIABLE)
        context = vf.ModelContext(model="policy", client=client)
        async with _served(self._config).used() as env:
            episode = await env.run_episode(self._task, context)
        return verdict_of(episode)


def verdict_of(episode: Any) -> Verdict:  # noqa: ANN401 - theirs
    """Read the score of an episode: the mean over the traces of agents that are trained.

    Raises:
        EpisodeFailedError: It holds an error, or no such trace.
    """
    errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
    if not episode.ok or not episode.traces:
        words = "; ".join(f"{error.type}: {error.message}" for error in errors)
        raise EpisodeFailedError(words or "the episode has no traces")
    traces = [trace for trace in episode.traces if trace.agent.trainable]
    if not traces:
        raise EpisodeFailedError("the episode has no trace of an agent that is trained")
    metrics: dict[str, float | int] = {}
    reward = 0.0
    for trace in traces:
        earned = {name: r.score * r.weight for name, r in _given(trace.rewards)}
        reward += sum(earned.values()) / len(traces)
        named = [*_given(trace.metrics), *((f"reward/{name}", r) for name, r in earned.items())]
        for name, number in named:
            metrics[name] = metrics.get(name, 0.0) + number / len(traces)
    stops = sorted({str(trace.stop_condition) for trace in traces if trace.stop_condition})
    return Verdict(reward, metrics, {"stop": ", ".join(stops)} if stops else {})


def _given(named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Leave out what was not scored."""
    return [(name, value) for name, value in named.items() if value is not None]


@dataclass(frozen=True)
class TaskGroup(EnvGroupBuilder):
    """One task of theirs, played by ``size`` agents.

    Attributes:
        config: Of their environment; it pickles.
        task: A task of its taskset; it pickles.
        size: Episodes of the group.
        dialogue: Makes tokens of messages.
    """

    config: Any
    task: Any
    size: int
    dialogue: Dialogue

    async def make_envs(self) -> Sequence[Env]:
        """Make one agent per episode."""
        agents = [TaskAgent(self.config, self.task) for _ in range(self.size)]
        return [AgentEpisode(agent, self.dialogue) for agent in agents]

    def logging_tags(self) -> list[str]:
        """Return the name of their environment."""
        return [str(self.config.env_id)]


def groups(
    config: Any,  # noqa: ANN401 - theirs
    dialogue: Dialogue,
    *,
    size: int = 8,
    tasks: Iterable[Any] | None = None,
) -> list[TaskGroup]:
    """Make a group of each task.

    Args:
        config: Of their environment, such as ``vf.SingleAgentEnvConfig(taskset={"id": "gsm8k"})``.
        dialogue: Makes tokens of messages.
        size: Episodes of a group.
        tasks: Some tasks, such as ``env.taskset.take(64)``; by default all of the taskset.
    """
    if tasks is None:
        tasks = library().load_environment(config).taskset
    return [TaskGroup(config, task, size, dialogue) for task in tasks]

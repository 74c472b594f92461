"""Agents with loops of their own, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fakes.sampler import ScriptedSampler
from tests.fakes.words import END, WordTokenizer
from tinker_ray.environments import Dialogue, verifiers_tasks
from tinker_ray.environments.agent import AgentGroup, Verdict, read_calls
from tinker_ray.environments.endpoint import Completion, Endpoint
from tinker_ray.rl import LocalWorker
from tinker_ray.rollouts import (
    Attempt,
    AttemptId,
    EnvGroupBuilder,
    RolloutFailedError,
    RolloutParams,
    Trajectory,
    TrajectoryGroup,
)
from tinker_ray.rollouts.datum import from_trajectory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ATTEMPT = Attempt(AttemptId(0, 0), RolloutParams(max_tokens=30))
DIALOGUE = Dialogue(WordTokenizer())
TOOLS = [{"type": "function", "function": {"name": "double"}}]


async def ask(
    http: httpx.AsyncClient, base_url: str, messages: list[dict[str, Any]], **more: object
) -> dict[str, Any]:
    body = {"model": "any", "messages": messages, **more}
    response = await http.post(f"{base_url}/chat/completions", json=body)
    response.raise_for_status()
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


@dataclass
class Asker:
    """Asks again and again, each time with the whole conversation; its reward counts words."""

    questions: tuple[str, ...] = ("one?", "two?", "three?")
    rewrites: bool = False
    error: str = ""
    heard: list[str] = field(default_factory=list)

    async def __call__(self, base_url: str, /) -> Verdict:
        messages: list[dict[str, Any]] = []
        async with httpx.AsyncClient() as http:
            for question in self.questions:
                if self.rewrites:
                    messages = []
                messages.append({"role": "user", "content": question})
                answer = await ask(http, base_url, messages)
                messages.append(answer)
                self.heard.append(answer["content"])
                if self.error:
                    raise ValueError(self.error)
        return Verdict(
            float(len(self.heard)), {"asked": len(self.heard)}, {"last": "".join(self.heard[-1:])}
        )


async def call_tools(base_url: str) -> Verdict:
    """Offers a tool, and gives its result back as a message of the role tool."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "double 4"}]
    async with httpx.AsyncClient() as http:
        answer = await ask(http, base_url, messages, tools=TOOLS)
        [call] = answer["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "8"}
        final = await ask(http, base_url, [*messages, answer, result], tools=TOOLS)
    named = call["function"]["name"] == "double" and final["content"] == "8"
    return Verdict(float(named))


def run(group: EnvGroupBuilder, *answers: str) -> TrajectoryGroup:
    """Play a group whose model gives these answers, turn by turn."""
    given = {"count": 0}

    def answer(prompt: list[int], row: int) -> list[int]:
        text = answers[min(given["count"], len(answers) - 1)]
        given["count"] += 1
        return [ord(character) for character in f"{text}{END}"]

    async def play() -> TrajectoryGroup:
        worker = LocalWorker()
        try:
            return await worker.run_group(group, ScriptedSampler(answer), ATTEMPT)
        finally:
            await worker.close()

    return asyncio.run(play())


def prompts(trajectory: Trajectory) -> list[str]:
    return ["".join(map(chr, turn.ob.to_ints())) for turn in trajectory.transitions]


def test_what_an_agent_asks_is_an_observation_and_its_verdict_the_last_reward() -> None:
    group = run(AgentGroup(Asker, 1, DIALOGUE, ("asker",)), "a", "b", "c")
    [trajectory] = group.trajectories_G
    assert [
        "[u]one?\n[a]",
        f"[u]one?\n[a]a{END}\n[u]two?\n[a]",
        f"[u]one?\n[a]a{END}\n[u]two?\n[a]b{END}\n[u]three?\n[a]",
    ] == prompts(trajectory)
    assert [0.0, 0.0, 3.0] == [turn.reward for turn in trajectory.transitions]
    assert ({"asked": 3}, {"last": "c"}) == (
        trajectory.transitions[-1].metrics,
        trajectory.transitions[-1].logs,
    )
    assert 1 == len(from_trajectory(trajectory, 1.0))


def test_an_agent_that_begins_anew_gets_a_conversation_of_its_own() -> None:
    [trajectory] = run(AgentGroup(partial(Asker, rewrites=True), 1, DIALOGUE), "a").trajectories_G
    assert ["[u]one?\n[a]", "[u]two?\n[a]", "[u]three?\n[a]"] == prompts(trajectory)
    assert 3 == len(from_trajectory(trajectory, 1.0))


def test_episodes_of_a_group_have_addresses_of_their_own() -> None:
    group = run(AgentGroup(Asker, 3, DIALOGUE), "a")
    assert [3.0, 3.0, 3.0] == group.get_total_rewards()


def test_an_agent_that_fails_fails_its_episode_with_its_words() -> None:
    with pytest.raises(RolloutFailedError, match="ValueError: no luck") as caught:
        run(AgentGroup(partial(Asker, error="no luck"), 1, DIALOGUE), "a")
    assert "environment" == caught.value.kind


def test_an_agent_that_never_asks_is_an_error() -> None:
    with pytest.raises(RolloutFailedError, match="without a request"):
        run(AgentGroup(partial(Asker, questions=()), 1, DIALOGUE), "a")


def agent_with_tools() -> Any:  # noqa: ANN401 - a coroutine function is an agent
    return call_tools


def test_calls_of_tools_are_read_and_their_results_go_on() -> None:
    call = '<tool_call>{"name": "double", "arguments": {"x": 4}}</tool_call>'
    group = run(AgentGroup(agent_with_tools, 1, DIALOGUE), call, "8")
    assert [1.0] == group.get_total_rewards()
    assert f"[double][u]double 4\n[a]{call}{END}\n[t]8\n[a]" == prompts(group.trajectories_G[0])[1]


def test_what_is_no_call_stays_among_the_words() -> None:
    text = 'so <tool_call>{"x": 1}</tool_call> and <tool_call>{"name": "f"}</tool_call>'
    words, [call] = read_calls(text)
    assert 'so <tool_call>{"x": 1}</tool_call> and' == words
    assert {"name": "f", "arguments": "{}"} == call["function"]


@pytest.mark.parametrize(
    "body,words",
    [
        (b"{", "no JSON"),
        (b"[]", "needs messages"),
        (b'{"messages": []}', "empty"),
        (b'{"messages": [{}], "n": 2}', "one answer at a time"),
    ],
)
async def test_a_request_that_cannot_be_answered_is_told_why(body: bytes, words: str) -> None:
    endpoint = Endpoint()
    await endpoint.start()
    async with httpx.AsyncClient() as http:
        refused = await http.post(f"{endpoint.url}/chat/completions", content=body)
        unknown = await http.post(f"{endpoint.url}/completions", content=b"{}")
        stranger = await http.get(f"{endpoint.url.rpartition('/')[0][:-4]}/v1/models")
        models = await http.get(f"{endpoint.url}/models")
    await endpoint.aclose()
    assert (400, 404, 404, 200) == (
        refused.status_code,
        unknown.status_code,
        stranger.status_code,
        models.status_code,
    )
    assert words in refused.json()["error"]["message"]


async def test_an_answer_is_streamed_if_that_is_asked() -> None:
    endpoint = Endpoint()
    await endpoint.start()

    async def answer() -> None:
        request = await endpoint.requests.get()
        request.answer.set_result(Completion("hi"))

    body = {"messages": [{"role": "user", "content": "?"}], "stream": True}
    async with httpx.AsyncClient() as http:
        response, _ = await asyncio.gather(
            http.post(f"{endpoint.url}/chat/completions", json=body), answer()
        )
    await endpoint.aclose()
    assert response.headers["content-type"] == "text/event-stream"
    assert '"delta": {"role": "assistant", "content": "hi"}' in response.text
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_request_that_waits_ends_with_the_endpoint() -> None:
    endpoint = Endpoint()
    await endpoint.start()
    body = {"messages": [{"role": "user", "content": "?"}]}
    async with httpx.AsyncClient() as http:
        asking = asyncio.create_task(http.post(f"{endpoint.url}/chat/completions", json=body))
        await endpoint.requests.get()
        await endpoint.aclose()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
    await endpoint.aclose()


class FakeLibrary(ModuleType):
    """As much of ``verifiers.v1`` as the adapter uses; see tests/contract/test_verifiers.py."""

    def __init__(self) -> None:
        super().__init__("verifiers.v1")
        self.log: list[str] = []
        self.breaks = False
        self.EvalClientConfig = SimpleNamespace
        self.ModelContext = SimpleNamespace

    def load_environment(self, config: SimpleNamespace) -> FakeLibrary:
        self.log.append(f"load {config.env_id}")
        self.taskset = [SimpleNamespace(data=SimpleNamespace(idx=idx)) for idx in range(3)]
        return self

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        if self.breaks:
            raise OSError("no port")
        self.log.append("serve")
        task = asyncio.current_task()
        yield
        assert task is asyncio.current_task()
        self.log.append("stop")

    async def run_episode(self, task: SimpleNamespace, ctx: SimpleNamespace) -> SimpleNamespace:
        assert "TINKER_RAY_NO_KEY" == ctx.client.api_key_var
        async with httpx.AsyncClient() as http:
            question = [{"role": "user", "content": f"task {task.data.idx}"}]
            answer = await ask(http, ctx.client.base_url, question, model=ctx.model)
        trace = SimpleNamespace(
            agent=SimpleNamespace(trainable=True),
            rewards={"length": SimpleNamespace(score=len(answer["content"]), weight=0.5)},
            metrics={"asked": 1.0},
            errors=[],
            stop_condition=None,
        )
        return SimpleNamespace(ok=True, errors=[], traces=[trace])


def test_tasks_of_verifiers_are_played_and_served_from_the_first_to_the_last_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeLibrary()
    monkeypatch.setitem(sys.modules, "verifiers", ModuleType("verifiers"))
    monkeypatch.setitem(sys.modules, "verifiers.v1", fake)
    config = SimpleNamespace(env_id="fake", model_dump_json=lambda: "{}")
    made = verifiers_tasks.groups(config, DIALOGUE, size=3)
    assert [["fake"]] * 3 == [group.logging_tags() for group in made]
    fake.log.clear()
    played = run(made[1], "four")
    assert [2.0, 2.0, 2.0] == played.get_total_rewards()
    assert ["[u]task 1\n[a]"] == prompts(played.trajectories_G[0])
    assert {"asked": 1.0, "reward/length": 2.0} == played.trajectories_G[0].transitions[-1].metrics
    assert ["load fake", "serve", "stop"] == fake.log


def test_an_environment_of_verifiers_that_cannot_serve_fails_its_groups_and_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeLibrary()
    monkeypatch.setitem(sys.modules, "verifiers", ModuleType("verifiers"))
    monkeypatch.setitem(sys.modules, "verifiers.v1", fake)
    config = SimpleNamespace(env_id="fake", model_dump_json=lambda: "{}")
    [group, *_] = verifiers_tasks.groups(config, DIALOGUE, size=2)
    fake.breaks = True
    with pytest.raises(RolloutFailedError, match="OSError: no port"):
        run(group, "four")
    fake.breaks = False
    assert [2.0, 2.0] == run(group, "four").get_total_rewards()

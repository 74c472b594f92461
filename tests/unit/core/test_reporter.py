from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any, Self

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.config import Secret
from tinker_ray.core import event, reporter
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.reporter import Reporter
from tinker_ray.core.runtime import LocalRuntime
from tinker_ray.core.sdk_method import sdk_method
from tinker_ray.core.session import SessionCore
from tinker_ray.transport.auth import ApiKey
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.version import SDK_VERSION

PATH = "/api/v1/telemetry"
ACCEPTED = answer({"status": "accepted"})


class Scene:
    """A started reporter over a script, and time that stands still."""

    def __init__(
        self,
        *answers: Answer,
        flags: ServerFlags | None = None,
        session: str | None = "S1",
        close_s: float = 5.0,
    ) -> None:
        self.transport = ScriptedTransport({PATH: list(answers) or [ACCEPTED]})
        self.clock = SteppedClock()
        self.link = Link(self.transport, self.clock, flags or ServerFlags())
        self.reporter = Reporter(self.link, session, close_s=close_s)
        self.link.events = self.reporter
        self.reporter.start()

    @property
    def batches(self) -> list[Any]:
        return [sent.json()["events"] for sent in self.transport.sent]

    @property
    def names(self) -> list[list[str]]:
        """Of every event, batch by batch."""
        return [
            [item.get("event_name", item["event"]) for item in events] for events in self.batches
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reporter.aclose()


async def test_events_are_sent_together_after_ten_seconds() -> None:
    async with Scene() as scene:
        assert scene.reporter.log("a", {"x": 1}, "WARNING")
        await scene.clock.advance(9.9)
        scene.reporter.log("b")
        assert [] == scene.names
        await scene.clock.advance(0.2)
        assert [["SESSION_START", "a", "b"]] == scene.names
        scene.reporter.log("c")
        await scene.clock.advance(10)
        assert ["c"] == scene.names[-1]
        await scene.clock.advance(100)
        assert 2 == len(scene.names)


async def test_a_batch_says_whose_it_is() -> None:
    async with Scene() as scene:
        await scene.clock.advance(10)
        body = scene.transport.sent[0].json()
    assert ("S1", SDK_VERSION, reporter.own_process_uuid()) == (
        body["session_id"],
        body["sdk_version"],
        body["process_uuid"],
    )
    assert {"events", "platform", "sdk_version", "session_id", "process_uuid"} == set(body)


async def test_an_older_service_is_not_told_of_processes() -> None:
    async with Scene(flags=JSON_ONLY) as scene:
        await scene.clock.advance(10)
        assert "process_uuid" not in scene.transport.sent[0].json()


async def test_without_a_session_the_events_have_a_session_of_their_own() -> None:
    async with Scene(session=None) as scene:
        scene.reporter.log("a")
        await scene.clock.advance(10)
        assert str(scene.transport.sent[0].json()["session_id"]).startswith("sessionless-")
        assert [["a"]] == scene.names
    assert [["a"]] == scene.names


async def test_events_get_their_index_here_whoever_made_them() -> None:
    async with Scene() as scene:
        now = datetime.now(UTC)
        told = [event.generic(name, {}, "INFO", now) for name in "ab"]
        assert await scene.reporter.tell(told)
        scene.reporter.log("c")
        assert await scene.reporter.tell(told[:1])
        await scene.clock.advance(10)
        assert [0, 1, 2, 3, 4] == [item["event_session_index"] for item in scene.batches[0]]


async def test_batches_have_a_hundred_events_and_the_queue_an_end() -> None:
    async with Scene() as scene:
        taken = [scene.reporter.log("a") for _ in range(reporter.MAX_QUEUED + 5)]
        assert ([True] * 9_999, [False] * 6) == (taken[:9_999], taken[9_999:])
        await scene.clock.advance(10)
        assert [100] * 100 == [len(events) for events in scene.batches]
        assert scene.reporter.log("a")


async def test_whoever_wants_it_sent_waits_until_it_is() -> None:
    async with Scene() as scene:
        scene.reporter.log("a")
        assert await scene.reporter.tell([], flush=True)
        assert [["SESSION_START", "a"]] == scene.names
        assert await scene.reporter.tell([], flush=True)
        assert 1 == len(scene.names)


async def test_a_batch_that_cannot_be_sent_is_dropped_after_its_retries() -> None:
    async with Scene(answer(status=400), ACCEPTED) as scene:
        scene.reporter.log("a")
        await scene.clock.advance(10)
        scene.reporter.log("b")
        await scene.clock.advance(10)
        assert [["SESSION_START", "a"], ["b"]] == scene.names


async def test_telling_that_telling_failed_would_never_end() -> None:
    lost: list[Answer] = [errors.APIConnectionError() for _ in range(11)]
    async with Scene(*lost, ACCEPTED) as scene:
        await scene.clock.advance(1000)
        assert {("SESSION_START",)} == {tuple(names) for names in scene.names}
        assert 11 == len(scene.names)


async def test_a_service_without_the_endpoint_is_left_alone() -> None:
    async with Scene(answer(status=404)) as scene:
        await scene.clock.advance(10)
        assert not scene.reporter.log("a")
        assert not await scene.reporter.tell([], flush=True)
        await scene.clock.advance(100)
    assert 1 == len(scene.names)


async def test_what_is_wrong_with_a_batch_does_not_end_the_telling() -> None:
    def odd(_: object) -> Any:  # noqa: ANN401 - never
        message = "odd"
        raise ZeroDivisionError(message)

    async with Scene(odd, ACCEPTED) as scene:
        await scene.clock.advance(10)
        scene.reporter.log("a")
        await scene.clock.advance(10)
        assert ["a"] == scene.names[-1]


async def test_closing_says_that_the_session_ended_and_sends_what_is_left() -> None:
    scene = Scene()
    scene.reporter.log("a")
    await scene.reporter.aclose()
    await scene.reporter.aclose()
    assert [["SESSION_START", "a", "SESSION_END"]] == scene.names


async def test_closing_does_not_wait_long_for_a_silent_service() -> None:
    scene = Scene(errors.APIConnectionError(), close_s=0.01)
    await scene.reporter.aclose()  # the retries wait for a clock that stands still
    assert 1 == len(scene.names)


async def test_a_restarted_owner_does_not_say_that_the_session_began() -> None:
    scene = Scene()
    again = Reporter(scene.link, "S1")
    again.start(restarted=True)
    again.log("a")
    await again.aclose()
    await scene.reporter.aclose()
    assert [["a", "SESSION_END"], ["SESSION_START", "SESSION_END"]] == scene.names


async def test_the_credential_is_never_sent_whatever_it_looks_like() -> None:
    async with Scene() as scene:
        scene.link.credentials = ApiKey(Secret("hunter2"))
        scene.reporter.log("a", {"text": "my key is hunter2", "hunter2": 1})
        await scene.clock.advance(10)
        content = scene.transport.sent[0].request.content
    assert b"hunter2" not in content
    assert 2 == content.count(b"***")


async def test_batches_are_no_part_of_the_call_that_fills_them() -> None:
    with sdk_method("TrainingClient.forward"):
        scene = Scene()
        await scene.clock.advance(10)
    async with scene:
        assert "x-sdk-method" not in scene.transport.sent[0].request.headers


def test_a_forked_child_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = reporter.own_process_uuid()
    assert own == reporter.own_process_uuid()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert own != reporter.own_process_uuid()


async def test_the_repr_tells_what_waits() -> None:
    async with Scene() as scene:
        assert "Reporter('S1', queued=1)" == repr(scene.reporter)
        await settle()
        await asyncio.sleep(0)


async def test_a_runtime_tells_of_its_session_and_of_what_its_calls_report() -> None:
    script: dict[str, list[Answer]] = {
        PATH: [ACCEPTED],
        "/api/v1/sessions/S1/finish": [answer({})],
    }
    transport = ScriptedTransport(script)
    link = Link(transport, SteppedClock())
    runtime = LocalRuntime(link, SessionCore(link, "S1"), Reporter(link, "S1"))
    link.report("a", {}, "INFO")
    await runtime.aclose()
    assert [PATH, "/api/v1/sessions/S1/finish"] == transport.paths()
    events: Any = transport.sent[0].json()["events"]
    assert ["SESSION_START", "GENERIC_EVENT", "SESSION_END"] == [item["event"] for item in events]

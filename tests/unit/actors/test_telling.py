"""Events for the service on a cluster: made anywhere, sent by the session's actor."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from actors.handles.session import SessionHandle
from actors.session import SessionActor
from tests.unit.actors.conftest import SERVICE
from tinker_ray.core import event
from tinker_ray.core.link import Link
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.scripted import ScriptedTransport, answer

TELLING = replace(SERVICE, report=True)
EVENTS = [event.generic("a", {}, "INFO", datetime(2026, 1, 1, tzinfo=UTC))]


def scripted() -> tuple[Link, ScriptedTransport]:
    transport = ScriptedTransport(
        {
            "/api/v1/telemetry": [answer({"status": "accepted"})],
            "/api/v1/session_heartbeat": [answer(status=410)],
        }
    )
    return Link(transport, VirtualClock()), transport


def told(transport: ScriptedTransport) -> list[Any]:
    bodies: list[Any] = [sent.json() for sent in transport.sent]
    return [
        item.get("event_name", item["event"]) for body in bodies for item in body.get("events", [])
    ]


async def test_events_from_anywhere_are_sent_by_the_sessions_actor() -> None:
    link, transport = scripted()
    session = SessionActor(TELLING, link=link)
    assert await session.tell(EVENTS, True)  # noqa: FBT003 - as it crosses the process border
    assert ["SESSION_START", "a"] == told(transport)
    link.report("b", {}, "INFO")
    await session.aclose()
    assert ["SESSION_START", "a", "b", "SESSION_END"] == told(transport)


async def test_a_restarted_actor_does_not_begin_the_session_again() -> None:
    link, transport = scripted()
    session = SessionActor(TELLING, link=link, restarted=True)
    await session.tell(EVENTS)
    await session.aclose()
    assert ["a", "SESSION_END"] == told(transport)


async def test_a_service_that_is_not_to_be_told_is_not() -> None:
    link, transport = scripted()
    session = SessionActor(SERVICE, link=link)
    assert not await session.tell(EVENTS, True)  # noqa: FBT003
    await session.aclose()
    assert [] == told(transport)


async def test_the_handle_passes_events_on_once() -> None:
    calls: list[tuple[Any, ...]] = []

    class Remote:
        async def call(self, *call: Any) -> bool:  # noqa: ANN401
            calls.append(call)
            return True

    remote: Any = Remote()
    assert await SessionHandle(remote).tell(tuple(EVENTS), flush=True)
    assert [("tell", EVENTS, True)] == calls
